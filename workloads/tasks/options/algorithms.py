"""Options of the task over classical algorithms. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal

from workloads.method import Method, option, options


@options
class Clrs:
    """Do what a classical algorithm does, on samples of CLRS-30; score `val_accuracy`, over nodes that have an answer.

    A sample of n nodes is a sequence of 2n steps: first each node's features, then each node again, with a flag, to
    be answered; so that a causal model has seen all of them before its first answer. Features of a node: its own,
    those of the whole graph, and its rows of the matrices given (weights, adjacency), filled up to 64 columns. Answers:
    a node (the predecessor in sorted order or in a tree, ...), of 64 classes; yes or no; or, where one node of the
    sample is asked for, that node, at the last step. Hints are not used, and of several answers the first alone.

    Data: dm-clrs 2.0.3 (Apache-2.0), its samplers with CLRS-30's sizes and seeds: 1,000 samples of 16 nodes to train,
    32 to validate, 32 of 64 nodes for `test_accuracy`; the last two 32 or 64 times as many where a sample has one
    answer. Of CLRS-30's algorithms the 23 that answer for nodes. A head of fixed classes cannot point at nodes that
    training never had: of pointers, `test_accuracy` tells little. Trivial baseline: `majority`, the most frequent
    answer of the training split.
    """

    metric: ClassVar[str] = "val_accuracy"
    goal: ClassVar[str] = "maximize"
    metrics: ClassVar[dict[str, str]] = {"test_accuracy": "maximize"}
    name: Literal["clrs"] = "clrs"
    algorithm: Literal[
        "activity_selector",
        "articulation_points",
        "bellman_ford",
        "bfs",
        "binary_search",
        "bubble_sort",
        "dag_shortest_paths",
        "dfs",
        "dijkstra",
        "find_maximum_subarray_kadane",
        "graham_scan",
        "heapsort",
        "insertion_sort",
        "jarvis_march",
        "kmp_matcher",
        "minimum",
        "mst_prim",
        "naive_string_matcher",
        "quickselect",
        "quicksort",
        "strongly_connected_components",
        "task_scheduling",
        "topological_sort",
    ] = option("jarvis_march", "Which algorithm.", sweep=["jarvis_march", "bfs", "minimum", "insertion_sort"])


METHODS = (Method(Clrs, "workloads.tasks.algorithms:Clrs", "CLRS-30, arXiv:2205.15659"),)
