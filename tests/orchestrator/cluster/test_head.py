"""A head of one's own comes up beside others, and goes without a trace."""

import ipaddress
import urllib.request
from pathlib import Path

import psutil

from orchestrator.cluster.head import Head, stop
from tests.support.ray_cluster import private_ray


def test_a_second_head_meets_neither_the_first_nor_the_network_and_leaves_no_process(
    ray_head: Head, tmp_path: Path
) -> None:
    with private_ray(tmp_path / "second", cpus=1) as second:
        assert second.dashboard_url != ray_head.dashboard_url
        tree = [psutil.Process(second.pid), *psutil.Process(second.pid).children(recursive=True)]
        listening = {
            connection.laddr.ip
            for process in tree
            for connection in process.net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert {address for address in listening if not _is_loopback(address)} == set()
    assert not [process for process in tree if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert _answers(ray_head.dashboard_url)


def test_stop_leaves_alone_a_process_that_only_has_the_number(tmp_path: Path) -> None:
    me = psutil.Process()
    stop(Head(pid=me.pid, created=me.create_time() - 3600, mark="nobody", gcs_address="", dashboard_url=""))
    assert me.is_running()


def _is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def _answers(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/api/version", timeout=5) as answer:
        return bool(answer.status == 200)
