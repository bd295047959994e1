CREATE TABLE bookmark (
  name TEXT NOT NULL, 
  event_id BIGINT NOT NULL, 
  CONSTRAINT pk_bookmark PRIMARY KEY (name)
)
 WITHOUT ROWID

CREATE TABLE drained (
  node_id TEXT NOT NULL, 
  "by" TEXT NOT NULL, 
  at DATETIME NOT NULL, 
  CONSTRAINT pk_drained PRIMARY KEY (node_id)
)
 WITHOUT ROWID

CREATE TABLE lease (
  name TEXT NOT NULL, 
  holder TEXT NOT NULL, 
  number BIGINT NOT NULL, 
  renewals BIGINT NOT NULL, 
  renewed_at DATETIME NOT NULL, 
  CONSTRAINT pk_lease PRIMARY KEY (name)
)
 WITHOUT ROWID

CREATE TABLE project (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
  name TEXT NOT NULL, 
  CONSTRAINT uq_project_name UNIQUE (name)
)

CREATE TABLE token (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
  name TEXT NOT NULL, 
  digest TEXT NOT NULL, 
  role VARCHAR(16) NOT NULL, 
  project TEXT, 
  created_by TEXT NOT NULL, 
  created_at DATETIME NOT NULL, 
  revoked_at DATETIME, 
  CONSTRAINT uq_token_digest UNIQUE (digest), 
  CONSTRAINT ck_token_role CHECK (role IN ('viewer', 'submitter', 'admin'))
)

CREATE TABLE sweep (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
  project_id INTEGER NOT NULL, 
  name TEXT NOT NULL, 
  submitter TEXT NOT NULL, 
  state VARCHAR(16) NOT NULL, 
  version BIGINT NOT NULL, 
  wish VARCHAR(16) NOT NULL, 
  priority INTEGER NOT NULL, 
  metric TEXT NOT NULL, 
  goal VARCHAR(16) NOT NULL, 
  spec TEXT NOT NULL, 
  source TEXT NOT NULL, 
  slots INTEGER NOT NULL, 
  attempt INTEGER NOT NULL, 
  reason TEXT NOT NULL, 
  ray_job_id TEXT, 
  mlflow_run_id TEXT, 
  created_at DATETIME NOT NULL, 
  started_at DATETIME, 
  ended_at DATETIME, 
  losses INTEGER NOT NULL, 
  queued_at DATETIME NOT NULL, 
  waited_s DOUBLE NOT NULL, 
  max_concurrent INTEGER, 
  CONSTRAINT fk_sweep_project_id FOREIGN KEY(project_id) REFERENCES project (id), 
  CONSTRAINT ck_sweep_state CHECK (state IN ('queued', 'starting', 'running', 'paused', 'succeeded', 'failed', 'cancelled')), 
  CONSTRAINT ck_sweep_wish CHECK (wish IN ('run', 'pause', 'cancel')), 
  CONSTRAINT ck_sweep_goal CHECK (goal IN ('minimize', 'maximize'))
)

CREATE TABLE usage (
  project_id INTEGER NOT NULL, 
  submitter TEXT NOT NULL, 
  share DOUBLE NOT NULL, 
  at DATETIME NOT NULL, 
  CONSTRAINT pk_usage PRIMARY KEY (project_id, submitter), 
  CONSTRAINT fk_usage_project_id FOREIGN KEY(project_id) REFERENCES project (id)
)
 WITHOUT ROWID

CREATE TABLE delivery (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
  sweep_id INTEGER NOT NULL, 
  url TEXT NOT NULL, 
  payload TEXT NOT NULL, 
  tries INTEGER NOT NULL, 
  due_at DATETIME NOT NULL, 
  CONSTRAINT fk_delivery_sweep_id FOREIGN KEY(sweep_id) REFERENCES sweep (id) ON DELETE CASCADE
)

CREATE TABLE submission (
  "key" TEXT NOT NULL, 
  content TEXT NOT NULL, 
  sweep_id INTEGER NOT NULL, 
  CONSTRAINT pk_submission PRIMARY KEY ("key"), 
  CONSTRAINT fk_submission_sweep_id FOREIGN KEY(sweep_id) REFERENCES sweep (id) ON DELETE CASCADE
)
 WITHOUT ROWID

CREATE TABLE trial (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
  sweep_id INTEGER NOT NULL, 
  number INTEGER NOT NULL, 
  state VARCHAR(16) NOT NULL, 
  config TEXT NOT NULL, 
  config_hash TEXT NOT NULL, 
  seed BIGINT NOT NULL, 
  attempt INTEGER NOT NULL, 
  failures INTEGER NOT NULL, 
  step BIGINT NOT NULL, 
  step_attempt INTEGER NOT NULL, 
  checkpoint_path TEXT, 
  mlflow_run_id TEXT, 
  params_count BIGINT, 
  active_params BIGINT, 
  flops_per_token DOUBLE, 
  reason TEXT NOT NULL, 
  started_at DATETIME, 
  ended_at DATETIME, 
  identity TEXT, 
  parent_trial_id INTEGER, 
  parent_step BIGINT, 
  shared_from INTEGER, 
  score DOUBLE, 
  CONSTRAINT uq_trial_sweep_id_number UNIQUE (sweep_id, number), 
  CONSTRAINT fk_trial_sweep_id FOREIGN KEY(sweep_id) REFERENCES sweep (id) ON DELETE CASCADE, 
  CONSTRAINT ck_trial_state CHECK (state IN ('pending', 'running', 'paused', 'succeeded', 'stopped', 'failed', 'cancelled')), 
  CONSTRAINT fk_trial_parent_trial_id FOREIGN KEY(parent_trial_id) REFERENCES trial (id) ON DELETE SET NULL, 
  CONSTRAINT fk_trial_shared_from FOREIGN KEY(shared_from) REFERENCES trial (id) ON DELETE SET NULL
)

CREATE TABLE event (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
  sweep_id INTEGER, 
  trial_id INTEGER, 
  actor TEXT NOT NULL, 
  what TEXT NOT NULL, 
  reason TEXT NOT NULL, 
  at DATETIME NOT NULL, 
  CONSTRAINT fk_event_sweep_id FOREIGN KEY(sweep_id) REFERENCES sweep (id) ON DELETE CASCADE, 
  CONSTRAINT fk_event_trial_id FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE
)

CREATE TABLE metric_point (
  trial_id INTEGER NOT NULL, 
  name TEXT NOT NULL, 
  attempt INTEGER NOT NULL, 
  step BIGINT NOT NULL, 
  value DOUBLE NOT NULL, 
  at DATETIME NOT NULL, 
  CONSTRAINT pk_metric_point PRIMARY KEY (trial_id, name, attempt, step), 
  CONSTRAINT fk_metric_point_trial_id FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE
)
 WITHOUT ROWID

CREATE TABLE outbox (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
  topic VARCHAR(16) NOT NULL, 
  sweep_id INTEGER NOT NULL, 
  trial_id INTEGER, 
  payload TEXT NOT NULL, 
  CONSTRAINT ck_outbox_topic CHECK (topic IN ('sweep_started', 'trial_started', 'report', 'trial_ended', 'sweep_ended')), 
  CONSTRAINT fk_outbox_sweep_id FOREIGN KEY(sweep_id) REFERENCES sweep (id) ON DELETE CASCADE, 
  CONSTRAINT fk_outbox_trial_id FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE
)

CREATE TABLE perturbation (
  trial_id INTEGER NOT NULL, 
  attempt INTEGER NOT NULL, 
  step BIGINT NOT NULL, 
  parent_trial_id INTEGER NOT NULL, 
  parent_step BIGINT NOT NULL, 
  changed TEXT NOT NULL, 
  CONSTRAINT pk_perturbation PRIMARY KEY (trial_id, attempt), 
  CONSTRAINT fk_perturbation_trial_id FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE, 
  CONSTRAINT fk_perturbation_parent_trial_id FOREIGN KEY(parent_trial_id) REFERENCES trial (id) ON DELETE CASCADE
)
 WITHOUT ROWID

CREATE TABLE result (
  project_id INTEGER NOT NULL, 
  identity TEXT NOT NULL, 
  trial_id INTEGER NOT NULL, 
  CONSTRAINT pk_result PRIMARY KEY (project_id, identity), 
  CONSTRAINT fk_result_project_id FOREIGN KEY(project_id) REFERENCES project (id), 
  CONSTRAINT uq_result_trial_id UNIQUE (trial_id), 
  CONSTRAINT fk_result_trial_id FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE
)
 WITHOUT ROWID

CREATE TABLE trial_metric (
  trial_id INTEGER NOT NULL, 
  name TEXT NOT NULL, 
  last DOUBLE NOT NULL, 
  last_attempt INTEGER NOT NULL, 
  last_step BIGINT NOT NULL, 
  best DOUBLE NOT NULL, 
  best_step BIGINT NOT NULL, 
  CONSTRAINT pk_trial_metric PRIMARY KEY (trial_id, name), 
  CONSTRAINT fk_trial_metric_trial_id FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE
)
 WITHOUT ROWID

CREATE TABLE trial_param (
  trial_id INTEGER NOT NULL, 
  name TEXT NOT NULL, 
  is_text BOOLEAN NOT NULL, 
  text TEXT NOT NULL, 
  number DOUBLE, 
  CONSTRAINT pk_trial_param PRIMARY KEY (trial_id, name), 
  CONSTRAINT fk_trial_param_trial_id FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE
)
 WITHOUT ROWID

CREATE TABLE trial_wish (
  trial_id INTEGER NOT NULL, 
  wish VARCHAR(16) NOT NULL, 
  reason TEXT NOT NULL, 
  CONSTRAINT pk_trial_wish PRIMARY KEY (trial_id), 
  CONSTRAINT fk_trial_wish_trial_id FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE, 
  CONSTRAINT ck_trial_wish_wish CHECK (wish IN ('run', 'pause', 'cancel'))
)
 WITHOUT ROWID
