"""The service of orch, in reading order.

cli.submit -> web.api -> submit -> spec -> planning -> store     accepted
coordinator -> policy -> cluster.launcher                         started
cli.drive -> cluster.driver -> cluster.groups -> cluster.worker   trained
cluster.recorder -> store -> tracking                             recorded
board -> web, cli                                                 seen

ARCHITECTURE.md tells the same walk with its reasons.
"""

__version__ = "0.1.0"
