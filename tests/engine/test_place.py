def test_it(pg_url, full_faults, own_postgres):
    import psycopg
    with psycopg.connect(pg_url) as c:
        print(c.execute("show timezone").fetchone())
    own_postgres.stop(); own_postgres.start()
