"""What was seen: Prometheus samples, pods and StatefulSets as frozen observations."""
