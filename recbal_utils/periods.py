"""The weeks of the promotion log, and what each of them is for."""

N_WEEKS = 53
TRAIN_WEEKS = tuple(range(20, 41))
CHOOSE_WEEKS = tuple(range(41, 45))
TEST_WEEKS = tuple(range(45, 49))
CLOSED_WEEKS = tuple(range(49, 53))
CHOOSE_SHARE = 0.08
TEST_SHARE = 0.16
