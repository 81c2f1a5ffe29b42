-- The tables and indexes of a new SQLite file, so that making one takes no SQLAlchemy: what it would say, statement by statement.
-- Written by docs/build_schema.py (`make docs`) from schema.py, where they are defined; changes here are lost, and a test says when
-- the two differ.

CREATE TABLE checkpoints (
	run_id BLOB NOT NULL, 
	seq INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	path TEXT NOT NULL, 
	node TEXT NOT NULL, 
	next TEXT NOT NULL, 
	payload BLOB NOT NULL, 
	started_at BIGINT NOT NULL, 
	digest BLOB NOT NULL, 
	committed_at BIGINT NOT NULL, 
	CONSTRAINT pk_checkpoints PRIMARY KEY (run_id, seq)
);

CREATE TABLE graphs (
	graph_hash TEXT NOT NULL, 
	definition TEXT NOT NULL, 
	CONSTRAINT pk_graphs PRIMARY KEY (graph_hash)
);

CREATE TABLE runs (
	run_id BLOB NOT NULL, 
	tenant TEXT NOT NULL, 
	run_key TEXT, 
	flow TEXT NOT NULL, 
	flow_version TEXT NOT NULL, 
	graph_hash TEXT NOT NULL, 
	status TEXT NOT NULL, 
	head_seq INTEGER NOT NULL, 
	head_digest BLOB NOT NULL, 
	genesis BLOB NOT NULL, 
	max_steps INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	inbox_rev INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	owner TEXT, 
	wake_at BIGINT, 
	parent_run_id BLOB, 
	forked_at_seq INTEGER, 
	labels BLOB, 
	error BLOB, 
	cancel BLOB, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	CONSTRAINT pk_runs PRIMARY KEY (run_id), 
	CONSTRAINT uq_runs_tenant_flow_run_key UNIQUE (tenant, flow, run_key)
);

CREATE INDEX ix_runs_by_flow ON runs (tenant, flow, created_at, run_id);

CREATE INDEX ix_runs_by_status ON runs (tenant, status, created_at, run_id);

CREATE INDEX ix_runs_due ON runs (wake_at) WHERE wake_at IS NOT NULL;

CREATE INDEX ix_runs_newest ON runs (tenant, created_at, run_id);

CREATE INDEX ix_runs_owned ON runs (owner) WHERE owner IS NOT NULL;

CREATE TABLE workers (
	worker_id TEXT NOT NULL, 
	host TEXT NOT NULL, 
	pid INTEGER NOT NULL, 
	pid_started BIGINT NOT NULL, 
	started_at BIGINT NOT NULL, 
	lease_expires_at BIGINT NOT NULL, 
	CONSTRAINT pk_workers PRIMARY KEY (worker_id)
);

CREATE TABLE barriers (
	run_id BLOB NOT NULL, 
	ticket TEXT NOT NULL, 
	tenant TEXT NOT NULL, 
	node TEXT NOT NULL, 
	path TEXT NOT NULL, 
	status TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	deadline BIGINT, 
	opened_at BIGINT NOT NULL, 
	opened_seq INTEGER NOT NULL, 
	details BLOB NOT NULL, 
	CONSTRAINT pk_barriers PRIMARY KEY (run_id, ticket), 
	CONSTRAINT fk_barriers_run_id FOREIGN KEY(run_id) REFERENCES runs (run_id) ON DELETE CASCADE
);

CREATE INDEX ix_barriers_inbox ON barriers (tenant, status, opened_at, run_id, ticket);

CREATE TABLE decisions (
	id TEXT NOT NULL, 
	run_id BLOB NOT NULL, 
	ticket TEXT NOT NULL, 
	action TEXT NOT NULL, 
	actor TEXT NOT NULL, 
	payload_digest TEXT, 
	decided_at BIGINT NOT NULL, 
	consumed_seq INTEGER, 
	details BLOB NOT NULL, 
	CONSTRAINT pk_decisions PRIMARY KEY (id), 
	CONSTRAINT fk_decisions_run_id FOREIGN KEY(run_id) REFERENCES runs (run_id) ON DELETE CASCADE
);

CREATE INDEX ix_decisions_of_run ON decisions (run_id, decided_at, id);

CREATE TABLE effects (
	run_id BLOB NOT NULL, 
	"key" TEXT NOT NULL, 
	status TEXT NOT NULL, 
	epoch INTEGER NOT NULL, 
	begun INTEGER NOT NULL, 
	started_at BIGINT NOT NULL, 
	ended_at BIGINT, 
	details BLOB NOT NULL, 
	outcome BLOB, 
	CONSTRAINT pk_effects PRIMARY KEY (run_id, "key"), 
	CONSTRAINT fk_effects_run_id FOREIGN KEY(run_id) REFERENCES runs (run_id) ON DELETE CASCADE
);

CREATE TABLE grants (
	id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	tenant TEXT NOT NULL, 
	barrier TEXT NOT NULL, 
	flow TEXT, 
	run_id BLOB, 
	actor TEXT NOT NULL, 
	delegate TEXT, 
	uses INTEGER, 
	used INTEGER NOT NULL, 
	expires_at BIGINT, 
	made_at BIGINT NOT NULL, 
	revoked_at BIGINT, 
	details BLOB NOT NULL, 
	CONSTRAINT pk_grants PRIMARY KEY (id), 
	CONSTRAINT fk_grants_run_id FOREIGN KEY(run_id) REFERENCES runs (run_id) ON DELETE CASCADE
);

CREATE INDEX ix_grants_of_barrier ON grants (tenant, barrier, made_at, id);

CREATE TABLE snapshots (
	run_id BLOB NOT NULL, 
	seq INTEGER NOT NULL, 
	digest BLOB NOT NULL, 
	seal BLOB NOT NULL, 
	payload BLOB NOT NULL, 
	CONSTRAINT pk_snapshots PRIMARY KEY (run_id, seq), 
	CONSTRAINT fk_snapshots_run_id FOREIGN KEY(run_id) REFERENCES runs (run_id) ON DELETE CASCADE
);
