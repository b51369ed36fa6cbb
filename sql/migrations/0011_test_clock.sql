-- The test clock of a sandbox deployment: how far its time is ahead of the machines', for all its processes.

create table shouyin.test_clock (
  id smallint primary key default 1 check (id = 1),
  ahead_us bigint not null default 0 check (ahead_us >= 0),
  -- who moves it, and until when by the machine's clock nobody else may; one that died lets go by itself
  mover text,
  moving_until timestamptz,
  version integer not null default 1
);
insert into shouyin.test_clock default values;

-- Which kinds of rows a worker has in hand: what it claimed is due no longer, and not done yet. `until`, by the machine's
-- clock, is the longest lease of a row: a worker that died holds nobody up for longer than its rows do.
create unlogged table shouyin.test_clock_work (
  worker text not null,
  kind text not null,
  until timestamptz not null,
  primary key (worker, kind)
);

create function shouyin.announce_test_clock() returns trigger language plpgsql as $$
begin
  insert into shouyin.change (subject, row_id, version) values ('test_clock', new.id, new.version);
  return null;
end $$;

create trigger raise_version before update on shouyin.test_clock for each row
  when (old.ahead_us is distinct from new.ahead_us) execute function shouyin.raise_version();
create trigger announce_update after update on shouyin.test_clock for each row
  when (old.version < new.version) execute function shouyin.announce_test_clock();
