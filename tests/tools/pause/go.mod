module plan2/tests/tools/pause

go 1.26.0
