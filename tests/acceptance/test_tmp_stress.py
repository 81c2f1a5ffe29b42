import importlib.util, pathlib, pytest
spec = importlib.util.spec_from_file_location("riv", pathlib.Path(__file__).with_name("test_messages_between_processes.py"))
riv = importlib.util.module_from_spec(spec); spec.loader.exec_module(riv)
@pytest.mark.parametrize("n", range(60))
async def test_a(n, children, store_url): await riv.test_a_run_attached_at_a_barrier_is_cancelled_from_another_process(children, store_url)
@pytest.mark.parametrize("n", range(60))
async def test_c(n, children, store_url): await riv.test_a_decision_from_another_process_wakes_whoever_waits_for_the_result(children, store_url)
