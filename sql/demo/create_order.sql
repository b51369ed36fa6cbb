-- $1 the user, $2 what is bought, $3 its price in yuan as text; returns the order's id.
insert into public.orders (user_id, title, amount)
values ($1, $2, $3::text::numeric)
returning id;
