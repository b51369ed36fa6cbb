-- name: find
select app_id, kind, name, settings, link_pages, sealed, version from shouyin.wechat_app where app_id = $1;

-- name: list
select app_id, kind, name, settings, link_pages, created_at, updated_at, version from shouyin.wechat_app order by app_id;

-- name: files
select name, app_id from shouyin.wechat_file order by name;

-- name: lock
select kind, sealed from shouyin.wechat_app where app_id = $1 for no key update;

-- name: save
-- Adds an application or replaces its settings. A token that was fetched with the settings before goes, and so does the
-- lease of whoever is fetching one with them.
-- $1 app_id, $2 kind, $3 name, $4 settings, $5 link_pages, $6 sealed, $7 now
insert into shouyin.wechat_app (app_id, kind, name, settings, link_pages, sealed, created_at, updated_at)
values ($1, $2, $3, $4, $5, $6, $7, $7)
on conflict (app_id) do update set
  name = excluded.name, settings = excluded.settings, link_pages = excluded.link_pages, sealed = excluded.sealed,
  updated_at = excluded.updated_at, version = wechat_app.version + 1,
  token_sealed = null, token_expires_at = null, lease = null, leased_until = null
where wechat_app.kind = excluded.kind
returning app_id, kind, name, settings, link_pages, created_at, updated_at, version;

-- name: sealed_for_update
select app_id, sealed from shouyin.wechat_app order by app_id for no key update;

-- name: reseal
-- The token under the old key is dropped rather than sealed again: WeChat gives the same one to whoever asks next.
update shouyin.wechat_app set sealed = $2, updated_at = $3, token_sealed = null, token_expires_at = null
where app_id = $1 returning app_id;

-- name: file
select content from shouyin.wechat_file where name = $1;

-- name: save_file
-- Nothing is returned where the name belongs to another application. $1 name, $2 app_id, $3 content, $4 now
insert into shouyin.wechat_file (name, app_id, content, updated_at) values ($1, $2, $3, $4)
on conflict (name) do update set content = excluded.content, updated_at = excluded.updated_at
where wechat_file.app_id = excluded.app_id
returning name;

-- name: remove_file
delete from shouyin.wechat_file where name = $1 and app_id = $2 returning name;

-- name: token
select token_sealed, token_expires_at, leased_until from shouyin.wechat_app where app_id = $1;

-- name: lease_token
-- Takes the lease where nobody holds it and the token is still the one that was looked at.
-- $1 app_id, $2 the sealed token looked at, $3 lease, $4 now, $5 until
update shouyin.wechat_app set lease = $3, leased_until = $5
where app_id = $1 and (leased_until is null or leased_until <= $4) and token_sealed is not distinct from $2
returning app_id;

-- name: store_token
-- $1 app_id, $2 lease, $3 sealed token, $4 expires at
update shouyin.wechat_app set token_sealed = $3, token_expires_at = $4, lease = null, leased_until = null
where app_id = $1 and lease = $2
returning app_id;

-- name: release_token
update shouyin.wechat_app set lease = null, leased_until = null where app_id = $1 and lease = $2 returning app_id;

-- name: begin_code
-- The row of whoever is first with a code; nothing where the code, or the OAuth state, was used before.
-- $1 code_hash, $2 asker_hash, $3 state_hash, $4 now
insert into shouyin.wechat_code (code_hash, asker_hash, state_hash, asked_at) values ($1, $2, $3, $4)
on conflict do nothing returning asked_at;

-- name: forget_codes
-- $1 the instant before which they were asked about, $2 how many at most
delete from shouyin.wechat_code
where code_hash = any (array(
  select code_hash from shouyin.wechat_code where asked_at < $1 limit $2 for update skip locked))
returning asked_at;

-- name: code
select asker_hash, openid, nickname, errcode, asked_at from shouyin.wechat_code where code_hash = $1;

-- name: answer_code
-- $1 code_hash, $2 asked_at of whoever asked, $3 openid, $4 nickname, $5 errcode
update shouyin.wechat_code set openid = $3, nickname = $4, errcode = $5
where code_hash = $1 and asked_at = $2 returning asked_at;

-- name: forget_code
delete from shouyin.wechat_code where code_hash = $1 and asked_at = $2 returning asked_at;

-- name: count_link
-- Counts one link against its caller; nothing where $4 were made since $3. Two at once may make one too many.
-- $1 created_by, $2 now
insert into shouyin.wechat_link (created_by, created_at)
select $1, $2 where (select count(*) from shouyin.wechat_link where created_by = $1 and created_at > $3) < $4
returning id;

-- name: forget_links
-- $1 the instant before which they were made, $2 how many at most
delete from shouyin.wechat_link
where id = any (array(
  select id from shouyin.wechat_link where created_at < $1 limit $2 for update skip locked))
returning id;
