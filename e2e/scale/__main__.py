"""`python -m e2e.scale`: starts the cluster of a scale run, measures inside its network, removes it.

`SCALE_KEEP=1` keeps the cluster for a look around. Knows nothing of what is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from e2e.cluster import lifecycle
from e2e.cluster.settings import ClusterError
from e2e.scale.cluster import bring_up, describe_cluster
from e2e.scale.settings import CLUSTER, parse_settings


def main(arguments: Sequence[str]) -> int:
    """Exit status of the measuring process; 1 when the cluster did not start."""
    settings = parse_settings(arguments)
    command = [sys.executable, "-m", "e2e.cluster", "exec", "--name", CLUSTER, "--"]
    command += [sys.executable, "-m", "e2e.scale.measure", *arguments]
    try:
        lifecycle.take_down(describe_cluster())  # what an interrupted run left would be measured too
        bring_up(settings)
        return subprocess.run(command, check=False).returncode
    except ClusterError as error:
        print(f"scale: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if not os.environ.get("SCALE_KEEP"):
            lifecycle.take_down(describe_cluster())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
