-- name: append
-- $1 at, $2 actor, $3 action, $4 subject, $5 details, $6 address, $7 correlation id
insert into shouyin.audit (at, actor, action, subject, details, address, correlation_id)
values ($1, $2, $3, $4, $5, $6, $7)
returning id;
