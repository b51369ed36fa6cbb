-- WeChat's side of a login: applications (mini-programs and official accounts), the files that prove a domain to WeChat,
-- codes that were exchanged a moment ago, and how many links a caller made.

create table shouyin.wechat_app (
  app_id text primary key,
  kind text not null check (kind in ('mini_program', 'official_account')),
  name text not null,
  -- {"gateway": …, "authorize_gateway": …}
  settings jsonb not null,
  -- pages of the mini-program that callers who are no administrators may link to
  link_pages text[] not null default '{}',
  -- as merchant_account.sealed; "wechat_app:<app_id>" is the associated data
  sealed bytea not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  version integer not null default 1,
  -- The access token that all processes share. Whoever holds the lease fetches the next one; `lease` names the holder, so
  -- that one who comes late, after the lease was over, stores nothing.
  token_sealed bytea,
  token_expires_at timestamptz,
  lease text,
  leased_until timestamptz,
  check ((token_sealed is null) = (token_expires_at is null))
);

-- Served from the site's root, whichever application they belong to.
create table shouyin.wechat_file (
  name text primary key check (name ~ '^[A-Za-z0-9_-]{1,80}\.txt$'),
  app_id text not null references shouyin.wechat_app,
  content text not null check (char_length(content) between 1 and 1024),
  updated_at timestamptz not null
);

-- A code is spent with its first exchange. Its answer is kept for a minute, for the caller who asked, so that a page whose
-- answer was lost may ask again. The code itself is nowhere; rows are deleted by those who come after.
create table shouyin.wechat_code (
  -- SHA-256 of application and code
  code_hash bytea primary key,
  -- SHA-256 of who may hear the answer again: a subject, an address, or a browser's OAuth state
  asker_hash bytea not null,
  -- SHA-256 of the OAuth state: one state exchanges one code
  state_hash bytea unique,
  -- while WeChat is being asked all three are null
  openid text,
  nickname text,
  errcode integer,
  asked_at timestamptz not null
);
create index wechat_code_by_age on shouyin.wechat_code (asked_at);

create table shouyin.wechat_link (
  id bigint generated always as identity primary key,
  created_by text not null,
  created_at timestamptz not null
);
create index wechat_link_by_caller on shouyin.wechat_link (created_by, created_at);
create index wechat_link_by_age on shouyin.wechat_link (created_at);
