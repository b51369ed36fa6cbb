-- The order table of the demo shop, as a merchant's own application would have it.
create table if not exists public.orders (
  id bigint generated always as identity primary key,
  user_id bigint not null,
  title text not null,
  amount numeric(10,2) not null,
  status text not null default 'unpaid',
  created_at timestamptz not null default now()
);
