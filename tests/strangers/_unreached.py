"""What is not reached: what is said instead (by kinds), written by `run.py --write`."""

REASONS = {
    "conventions/bptt_clipped_by_norm": "obscure, clipped_norm",
    "conventions/bptt_x_of_t": "none",
    "cs231n/conv_ij": "obscure, comes_out, picked_at",
    "deeplearning_ai/cache_of_the_last": "obscure, right_with, comes_out, taken_as",
    "deeplearning_ai/cell_bias_over_rows": "obscure",
    "scripts/char_last_dh_only": "obscure, part",
    "scripts/scratch_m_of_classes": "obscure, right_with",
    "scripts/scratch_db_not_kept": "obscure",
    "scripts/ridge_lam_everywhere": "obscure, part",
    "the_book/col2im_no_stride": "obscure",
}

LINES = {
    "conventions/bptt_truncated": "wrong",
    "conventions/bptt_truncated_at_once": "wrong",
    "cs231n/ln_not_back": "wrong",
    "cs231n/svm_no_N": "wrong",
    "cs231n/softmax_no_one": "wrong",
    "cs231n/softmax_reg_before": "wrong",
    "deeplearning_ai/relu_keeps_all": "wrong",
    "deeplearning_ai/relu_for_sigmoid": "wrong",
    "deeplearning_ai/dropout_not_scaled": "wrong",
    "frameworks/softmax_diagonal": "wrong",
    "frameworks/softmax_no_diagonal": "wrong",
    "frameworks/bce_no_outputs": "wrong",
    "frameworks/bce_with_sigmoid": "wrong",
    "frameworks/bce_label_only": "wrong",
    "over_time/rnn_x_for_h": "wrong",
    "over_time/rnn_grads_swapped": "wrong",
    "scripts/scratch_b1_as_b2": "wrong",
    "scripts/lists_z_next": "wrong",
    "scripts/lists_prime_of_a": "wrong",
    "scripts/ninja_no_keepdims_sum": "wrong",
    "scripts/ninja_n_for_n_1": "wrong",
    "the_book/net_order": "several",
}
