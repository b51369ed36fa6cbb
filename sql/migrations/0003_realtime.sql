-- What the relay needs beside the table of waiting keys itself.

-- When the row changed, by the wall clock and not by the transaction's start: announced minus changed is the relay's lag.
alter table shouyin.change add column changed_at timestamptz not null default clock_timestamp();

-- Every row is deleted milliseconds after it was written, and each drain reads past what is dead until it is vacuumed:
-- vacuum by count, not by a share of the table, and without pauses. The relay vacuums by itself between these.
alter table shouyin.change set (
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0,
  autovacuum_vacuum_insert_threshold = -1,
  autovacuum_analyze_threshold = 2000000000
);
