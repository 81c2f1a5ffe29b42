import time, collections
def test_probe(children, store_url):
    t=time.time()
    r = children.run("start", store_url, flow="claim", input={"amount": 7})
    print(r, time.time()-t)
    run_id = r["result"]["run_id"]
    for ticket in ["site.review"]: pass
    while r["result"]["waiting_for"]:
        t=time.time()
        d = children.run("decide", store_url, run_id=run_id, barrier=r["result"]["waiting_for"][0], action="approve", by="ana")
        print(d, time.time()-t); t=time.time()
        r = children.run("resume", store_url, flow="claim", run_id=run_id)
        print(r, time.time()-t)
    for l in children.journal(): print(l["place"])
    print(len(children.journal()))
    assert 0
