"""What is not reached: what is said instead (by kinds), written by `run.py --write`."""

REASONS = {
    "cs231n/pool_all": "none",
    "cs231n/pool_average": "none",
    "cs231n/softmax_reg_before": "obscure, term, right_with",
    "deeplearning_ai/relu_keeps_all": "obscure, right_with",
    "over_time/lstm_i_bare": "obscure, right_with",
    "scripts/lists_prime_of_a": "none",
    "scripts/ridge_lam_everywhere": "obscure, part",
    "students/ratings_not_subtracted": "obscure",
}

LINES = {
    "conventions/bptt_truncated": "wrong",
    "cs231n/ln_not_back": "wrong",
    "cs231n/softmax_reg_before": "wrong",
    "deeplearning_ai/relu_keeps_all": "wrong",
    "deeplearning_ai/dropout_not_scaled": "wrong",
    "frameworks/bce_no_outputs": "wrong",
    "frameworks/bce_with_sigmoid": "wrong",
    "frameworks/bce_label_only": "wrong",
    "frameworks/mha_W_o_left_out": "wrong",
    "over_time/lstm_gates_bare": "several",
    "over_time/lstm_i_bare": "wrong",
    "scripts/scratch_b1_as_b2": "wrong",
    "scripts/lists_prime_of_a": "wrong",
    "students/ratings_not_subtracted": "wrong",
    "the_book/net_order": "several",
}
