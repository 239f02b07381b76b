"""Command line: `python -m e2e.cluster <command>`. Parses arguments and reports errors; does no work itself."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from e2e.cluster import access, binaries, debian, images, lifecycle
from e2e.cluster.settings import Cluster, ClusterError, Mode, find_cluster, known_clusters


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 1 with one message on standard error if the user has to do something."""
    arguments = _build_parser().parse_args(argv)
    try:
        return int(arguments.handler(arguments) or 0)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    _add(commands, "build", _build, "build and download the binaries into the cache")
    up = _add(commands, "up", _up, "start a cluster, or repair one")
    _add_name(up)
    up.add_argument("--mode", type=Mode, choices=list(Mode), help="default: full, or what runs already")
    up.add_argument("--accelerators", type=int, help="units of nvidia.com/gpu (default 4)")
    up.add_argument("--scrape-interval", help="Prometheus scrape interval (default 2s)")
    _add_name(_add(commands, "down", _down, "remove a cluster with all its state"))
    status = _add(commands, "status", _status, "show what runs; exit status 1 if a cluster is not up")
    status.add_argument("--name", help="default: all clusters")
    _add_name(_add(commands, "env", _env, "print export lines for a shell"))
    execute = _add(commands, "exec", _exec, "run a command inside a cluster's network namespace")
    _add_name(execute)
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- command")
    images_parser = _add(commands, "images", _images, "build the project's images and bring them into a cluster")
    _add_name(images_parser)
    images_parser.add_argument("--tag", default="dev", help="default: dev")
    names = [image.name for image in images.IMAGES]
    images_parser.add_argument("--only", action="append", choices=names, help="one image (may be repeated)")
    metrics = _add(commands, "prometheus", _prometheus, "stop or start a cluster's Prometheus")
    metrics.add_argument("action", choices=["start", "stop"])
    _add_name(metrics)
    return parser


def _add(commands: argparse._SubParsersAction, name: str, handler: object, text: str) -> argparse.ArgumentParser:  # type: ignore[type-arg]
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(handler=handler)
    return parser


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default=os.environ.get("ADAPTIVE_CLUSTER", "dev"), help="cluster (default: dev)")


def _build(arguments: argparse.Namespace) -> None:
    binaries.build_binaries()
    debian.ensure_tools()


def _up(arguments: argparse.Namespace) -> None:
    lifecycle.bring_up(_requested(arguments))


def _down(arguments: argparse.Namespace) -> None:
    lifecycle.take_down(find_cluster(arguments.name))


def _status(arguments: argparse.Namespace) -> int:
    names = [arguments.name] if arguments.name else known_clusters()
    states = [lifecycle.describe(find_cluster(name)) for name in names]
    print("\n".join(line for lines in states for line in lines) or "no clusters")
    return 0 if all(lines[0].endswith(": up") for lines in states) else 1


def _env(arguments: argparse.Namespace) -> None:
    print("\n".join(access.list_exports(find_cluster(arguments.name))))


def _exec(arguments: argparse.Namespace) -> None:
    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    access.replace_by(find_cluster(arguments.name), argv)


def _images(arguments: argparse.Namespace) -> None:
    wanted = [image for image in images.IMAGES if not arguments.only or image.name in arguments.only]
    images.provide_images(find_cluster(arguments.name), arguments.tag, wanted)


def _prometheus(arguments: argparse.Namespace) -> None:
    cluster = _requested(argparse.Namespace(name=arguments.name, mode=None, accelerators=None, scrape_interval=None))
    lifecycle.set_prometheus(cluster, arguments.action == "start")


def _requested(arguments: argparse.Namespace) -> Cluster:
    """The cluster as asked for; what was not said stays as it was, and a full cluster serves for api mode too."""
    recorded = lifecycle.recorded_settings(find_cluster(arguments.name))
    was_full = recorded.get("mode") == Mode.FULL
    mode = Mode.FULL if was_full else arguments.mode or Mode(recorded.get("mode", Mode.FULL))
    accelerators = arguments.accelerators
    if accelerators is None:
        accelerators = int(recorded.get("accelerators", "4"))
    interval = arguments.scrape_interval or recorded.get("scrape_interval", "2s")
    return find_cluster(arguments.name, mode, accelerators, interval)


if __name__ == "__main__":
    sys.exit(main())
