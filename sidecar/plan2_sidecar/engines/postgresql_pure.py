"""Which functions of PostgreSQL only compute: to call them twice is to call them once.

A transaction that can only read still lets a function notify, log or call another server.
"""

from typing import Final

from plan2_sidecar.engines import sqltext


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What may stand before a bracket without calling anything, or calls what is the language's own.
_LANGUAGE: Final = _words(
    "all and any array as between bpchar by bit case cast char character coalesce decimal distinct"
    " else except exists extract filter float from greatest group grouping having ilike in"
    " intersect interval is join lateral least like limit materialized not nullif numeric offset on"
    " or order over overlay partition position row rollup cube sets select similar some substring"
    " table then time timestamp timestamptz timetz to trim union using values varbit varchar"
    " varying when where window with within"
)
_FUNCTIONS: Final = _words(
    # numbers and texts
    "abs ascii btrim cbrt ceil ceiling char_length character_length chr concat concat_ws decode div"
    " encode exp floor format initcap left length ln log lower lpad ltrim md5 mod octet_length"
    " power quote_ident quote_literal quote_nullable regexp_like regexp_match regexp_matches"
    " regexp_replace regexp_split_to_array repeat replace reverse right round rpad rtrim sha256"
    " sign split_part sqrt starts_with string_to_array strpos substr to_char to_date to_hex"
    " to_number to_timestamp translate trunc upper width_bucket"
    # times
    " age clock_timestamp date_bin date_part date_trunc isfinite justify_days justify_hours"
    " justify_interval make_date make_interval make_time make_timestamp make_timestamptz now"
    " statement_timestamp timeofday timezone transaction_timestamp"
    # aggregates and windows
    " array_agg avg bit_and bit_or bool_and bool_or corr count covar_pop cume_dist dense_rank every"
    " first_value json_agg json_object_agg jsonb_agg jsonb_object_agg lag last_value lead max min"
    " mode nth_value ntile percent_rank percentile_cont percentile_disc rank row_number stddev"
    " stddev_pop stddev_samp string_agg sum var_pop var_samp variance"
    # arrays, JSON, search
    " array_append array_cat array_dims array_length array_lower array_ndims array_position"
    " array_positions array_prepend array_remove array_replace array_to_json array_to_string"
    " array_upper cardinality generate_series json_array_elements json_array_elements_text"
    " json_array_length json_build_array json_build_object json_each json_each_text"
    " json_extract_path json_extract_path_text json_object json_object_keys json_strip_nulls"
    " json_typeof jsonb_array_elements jsonb_array_elements_text jsonb_array_length"
    " jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_exists"
    " jsonb_extract_path jsonb_extract_path_text jsonb_object jsonb_object_keys jsonb_path_exists"
    " jsonb_path_match jsonb_path_query jsonb_path_query_array jsonb_path_query_first jsonb_pretty"
    " jsonb_set jsonb_strip_nulls jsonb_typeof phraseto_tsquery plainto_tsquery row_to_json to_json"
    " to_jsonb to_tsquery to_tsvector ts_headline ts_rank ts_rank_cd unnest websearch_to_tsquery"
    # and the rest
    " gen_random_uuid isempty lower_inc lower_inf num_nonnulls num_nulls random range_merge"
    " upper_inc upper_inf"
)
_KNOWN: Final = _LANGUAGE | _FUNCTIONS


def is_pure(statement: str) -> bool:
    """Whether it calls nothing but these. What a view calls in it is not seen."""
    return sqltext.called(statement) <= _KNOWN
