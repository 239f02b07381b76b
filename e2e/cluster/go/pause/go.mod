module adaptivellm.dev/cluster/pause

go 1.24
