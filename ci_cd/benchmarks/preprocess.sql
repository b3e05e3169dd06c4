-- What data_preprocessor.py does to the sales table, as one DuckDB script. peers.py puts the two paths in.
-- It leaves out what this table does not need: dates are imputed only where some are missing, and none are here.
-- The order of the rows is left free; row_id keeps it.

CREATE TEMP VIEW raw AS
SELECT *, file_row_number AS row_id, h % 1000 < 200 AS is_test, CASE WHEN is_test THEN 5 ELSE (h // 1000) % 5 END AS fold
FROM (
    SELECT *, hash(ordered_at, ships_on, unit_price, weight_kg, discount_share, quantity, customer_age, is_member, region,
                   product_group, product, note, amount) AS h
    FROM read_parquet('{source}', file_row_number = true)
);

CREATE TEMP VIEW train AS SELECT * FROM raw WHERE NOT is_test;

CREATE TEMP TABLE center AS
SELECT median(unit_price) AS unit_price, median(weight_kg) AS weight_kg, median(discount_share) AS discount_share,
       median(quantity) AS quantity, median(customer_age) AS customer_age, median(is_member::INT) AS is_member,
       avg(amount) AS amount
FROM train;

-- Codes in the order of the levels; levels with fewer than 5 train rows share the code after the last.
CREATE TEMP MACRO number_levels(n, level) AS
    CASE WHEN n >= 5 THEN row_number() OVER (PARTITION BY n >= 5 ORDER BY level) - 1
         ELSE sum((n >= 5)::INT) OVER () END;

CREATE TEMP TABLE region_codes AS
SELECT level, number_levels(n, level) AS code
FROM (SELECT region AS level, count(*) AS n FROM train WHERE region IS NOT NULL GROUP BY ALL);

CREATE TEMP TABLE note_codes AS
SELECT level, number_levels(n, level) AS code
FROM (SELECT note AS level, count(*) AS n FROM train WHERE note IS NOT NULL GROUP BY ALL);

-- Target means of a level without the rows of one fold: a train row's own target is not in its mean. Fold 5 has no
-- train rows; it stands for the test rows, whose means come from all train rows. Ten rows of the overall mean smooth.
CREATE TEMP TABLE group_means AS
WITH parts AS (SELECT product_group AS level, fold, count(*) AS n, sum(amount) AS total FROM train GROUP BY ALL),
     levels AS (SELECT level, sum(n) AS n, sum(total) AS total FROM parts GROUP BY level)
SELECT level, folds.fold, (levels.total - coalesce(parts.total, 0) + 10 * center.amount)
                          / (levels.n - coalesce(parts.n, 0) + 10) AS mean
FROM levels CROSS JOIN range(6) AS folds(fold) CROSS JOIN center LEFT JOIN parts USING (level, fold);

CREATE TEMP TABLE product_means AS
WITH parts AS (SELECT product AS level, fold, count(*) AS n, sum(amount) AS total FROM train GROUP BY ALL),
     levels AS (SELECT level, sum(n) AS n, sum(total) AS total FROM parts GROUP BY level)
SELECT level, folds.fold, (levels.total - coalesce(parts.total, 0) + 10 * center.amount)
                          / (levels.n - coalesce(parts.n, 0) + 10) AS mean
FROM levels CROSS JOIN range(6) AS folds(fold) CROSS JOIN center LEFT JOIN parts USING (level, fold);

COPY (
    SELECT
        raw.row_id,
        CASE WHEN is_test THEN 'test' ELSE 'train' END AS split,
        coalesce(raw.unit_price, center.unit_price)::DOUBLE AS unit_price,
        coalesce(raw.weight_kg, center.weight_kg)::DOUBLE AS weight_kg,
        coalesce(raw.discount_share, center.discount_share)::DOUBLE AS discount_share,
        coalesce(raw.quantity, center.quantity)::DOUBLE AS quantity,
        coalesce(raw.customer_age, center.customer_age)::DOUBLE AS customer_age,
        coalesce(raw.is_member::INT, center.is_member)::DOUBLE AS is_member,
        (raw.weight_kg IS NULL)::DOUBLE AS weight_kg_missing,
        (raw.customer_age IS NULL)::DOUBLE AS customer_age_missing,
        CASE WHEN region IS NULL THEN -2 ELSE coalesce(region_codes.code, -1) END::DOUBLE AS region,
        CASE WHEN note IS NULL THEN -2 ELSE coalesce(note_codes.code, -1) END::DOUBLE AS note,
        coalesce(group_means.mean, center.amount)::DOUBLE AS product_group,
        coalesce(product_means.mean, center.amount)::DOUBLE AS product,
        year(ordered_at)::DOUBLE AS ordered_at_year,
        month(ordered_at)::DOUBLE AS ordered_at_month,
        sin(2 * pi() * (month(ordered_at)) / 12) AS ordered_at_month_sin,
        cos(2 * pi() * (month(ordered_at)) / 12) AS ordered_at_month_cos,
        day(ordered_at)::DOUBLE AS ordered_at_day,
        (isodow(ordered_at) - 1)::DOUBLE AS ordered_at_weekday,
        sin(2 * pi() * (isodow(ordered_at) - 1) / 7) AS ordered_at_weekday_sin,
        cos(2 * pi() * (isodow(ordered_at) - 1) / 7) AS ordered_at_weekday_cos,
        hour(ordered_at)::DOUBLE AS ordered_at_hour,
        sin(2 * pi() * (hour(ordered_at)) / 24) AS ordered_at_hour_sin,
        cos(2 * pi() * (hour(ordered_at)) / 24) AS ordered_at_hour_cos,
        minute(ordered_at)::DOUBLE AS ordered_at_minute,
        epoch(ordered_at)::DOUBLE / 86400 AS ordered_at_days,
        year(ships_on)::DOUBLE AS ships_on_year,
        month(ships_on)::DOUBLE AS ships_on_month,
        sin(2 * pi() * (month(ships_on)) / 12) AS ships_on_month_sin,
        cos(2 * pi() * (month(ships_on)) / 12) AS ships_on_month_cos,
        day(ships_on)::DOUBLE AS ships_on_day,
        (isodow(ships_on) - 1)::DOUBLE AS ships_on_weekday,
        sin(2 * pi() * (isodow(ships_on) - 1) / 7) AS ships_on_weekday_sin,
        cos(2 * pi() * (isodow(ships_on) - 1) / 7) AS ships_on_weekday_cos,
        epoch(ships_on)::DOUBLE / 86400 AS ships_on_days,
        raw.amount::DOUBLE AS target
    FROM raw
    CROSS JOIN center
    LEFT JOIN region_codes ON region_codes.level = region
    LEFT JOIN note_codes ON note_codes.level = note
    LEFT JOIN group_means ON group_means.level = product_group AND group_means.fold = raw.fold
    LEFT JOIN product_means ON product_means.level = product AND product_means.fold = raw.fold
) TO '{target}' (FORMAT parquet, COMPRESSION zstd);
