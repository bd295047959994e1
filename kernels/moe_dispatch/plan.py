"""What a dispatch leaves behind so that rows find their way back to their tokens."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DispatchPlan:
    """A permutation of M assignments (token, expert) into rows grouped by expert, and the way back.

    Rows stand expert after expert; inside one expert they keep the order of the assignments. Dispatch gathers
    ``token``; combine sums, for token n, the rows ``bag_row[bag_start[n]:bag_start[n + 1]]``. All tensors are int64.

    Attributes:
        num_tokens: N, how many tokens the assignments refer to.
        counts: [E] rows of each expert; sums to M.
        assignment: [M] which assignment, in the caller's order, each row serves.
        token: [M] the token of each row.
        bag_row: [M] the rows, listed token after token.
        bag_assignment: [M] the assignment of each entry of ``bag_row``, that is ``assignment[bag_row]``.
        bag_start: [N + 1] where each token's entries begin in ``bag_row``, and M at the end.
    """

    num_tokens: int
    counts: Tensor
    assignment: Tensor
    token: Tensor
    bag_row: Tensor
    bag_assignment: Tensor
    bag_start: Tensor
