"""Whole networks with dicts of parameters, lists of caches, examples as columns."""
# fmt: off
# ruff: noqa

import numpy as np

import spiral_autograd as sa
from strangers import wrong


# ------------------------------ L layers ------------------------------

def sigmoid(Z):
    A = 1/(1+np.exp(-Z))
    return A, Z

def relu(Z):
    A = np.maximum(0,Z)
    return A, Z

def relu_backward(dA, cache):
    Z = cache
    dZ = np.array(dA, copy=True)
    dZ[Z <= 0] = 0
    return dZ

def sigmoid_backward(dA, cache):
    Z = cache
    s = 1/(1+np.exp(-Z))
    dZ = dA * s * (1-s)
    return dZ

def linear_forward(A, W, b):
    Z = np.dot(W, A) + b
    cache = (A, W, b)
    return Z, cache

def linear_activation_forward(A_prev, W, b, activation):
    Z, linear_cache = linear_forward(A_prev, W, b)
    if activation == "sigmoid":
        A, activation_cache = sigmoid(Z)
    else:
        A, activation_cache = relu(Z)
    return A, (linear_cache, activation_cache)

def L_model_forward(X, parameters):
    caches = []
    A = X
    L = len(parameters) // 2
    for l in range(1, L):
        A, cache = linear_activation_forward(A, parameters['W'+str(l)], parameters['b'+str(l)], "relu")
        caches.append(cache)
    AL, cache = linear_activation_forward(A, parameters['W'+str(L)], parameters['b'+str(L)], "sigmoid")
    caches.append(cache)
    return AL, caches

def compute_cost(AL, Y):
    m = Y.shape[1]
    cost = (-1/m) * np.sum(Y*np.log(AL) + (1-Y)*np.log(1-AL))
    return np.squeeze(cost)

def linear_backward(dZ, cache):
    A_prev, W, b = cache
    m = A_prev.shape[1]
    dW = np.dot(dZ, A_prev.T)/m
    db = np.sum(dZ, axis=1, keepdims=True)/m
    dA_prev = np.dot(W.T, dZ)
    return dA_prev, dW, db

def linear_activation_backward(dA, cache, activation):
    linear_cache, activation_cache = cache
    if activation == "relu":
        dZ = relu_backward(dA, activation_cache)
    else:
        dZ = sigmoid_backward(dA, activation_cache)
    dA_prev, dW, db = linear_backward(dZ, linear_cache)
    return dA_prev, dW, db

def L_model_backward(AL, Y, caches):
    grads = {}
    L = len(caches)
    dAL = -(np.divide(Y, AL) - np.divide(1-Y, 1-AL))
    current_cache = caches[L-1]
    grads["dA"+str(L-1)], grads["dW"+str(L)], grads["db"+str(L)] = linear_activation_backward(dAL, current_cache, "sigmoid")
    for l in reversed(range(L-1)):
        current_cache = caches[l]
        dA_prev, dW, db = linear_activation_backward(grads["dA"+str(l+1)], current_cache, "relu")
        grads["dA"+str(l)] = dA_prev
        grads["dW"+str(l+1)] = dW
        grads["db"+str(l+1)] = db
    return grads


def L_cost(parameters, X, Y):
    AL, caches = L_model_forward(X, parameters)
    return compute_cost(AL, Y)

def L_grads(parameters, X, Y):
    AL, caches = L_model_forward(X, parameters)
    grads = L_model_backward(AL, Y, caches)
    return {name: grads["d"+name] for name in parameters}

def L_parameters(sizes):
    rng = np.random.default_rng(1)
    parameters = {}
    for l in range(1, len(sizes)):
        parameters['W'+str(l)] = rng.normal(size=(sizes[l], sizes[l-1]))
        parameters['b'+str(l)] = rng.normal(size=(sizes[l], 1))
    return parameters

def check_L(budget=10.0):
    rng = np.random.default_rng(2)
    X, Y = rng.normal(size=(5, 7)), np.array([[1, 0, 0, 1, 1, 0, 1]])
    return sa.check_gradient(L_cost, L_grads, L_parameters((5, 4, 4, 4, 1)), X, Y, budget=budget)


# ------------------------------ three layers, L2 and dropout ------------------------------

def tanh_net_forward(X, parameters):
    W1, b1, W2, b2, W3, b3 = [parameters[k] for k in ("W1", "b1", "W2", "b2", "W3", "b3")]
    Z1 = np.dot(W1, X) + b1
    A1 = np.tanh(Z1)
    Z2 = np.dot(W2, A1) + b2
    A2 = np.tanh(Z2)
    Z3 = np.dot(W3, A2) + b3
    A3 = 1 / (1 + np.exp(-Z3))
    return A3, (Z1, A1, W1, b1, Z2, A2, W2, b2, Z3, A3, W3, b3)

def compute_cost_with_regularization(A3, Y, parameters, lambd):
    m = Y.shape[1]
    cross_entropy = -np.sum(Y * np.log(A3) + (1 - Y) * np.log(1 - A3)) / m
    L2 = 0
    for k in ("W1", "W2", "W3"):
        L2 = L2 + np.sum(np.square(parameters[k]))
    return cross_entropy + lambd / (2 * m) * L2

def backward_propagation_with_regularization(X, Y, cache, lambd):
    m = X.shape[1]
    (Z1, A1, W1, b1, Z2, A2, W2, b2, Z3, A3, W3, b3) = cache

    dZ3 = A3 - Y
    dW3 = 1./m * np.dot(dZ3, A2.T) + lambd/m * W3
    db3 = 1./m * np.sum(dZ3, axis=1, keepdims = True)

    dA2 = np.dot(W3.T, dZ3)
    dZ2 = dA2 * (1 - np.power(A2, 2))
    dW2 = 1./m * np.dot(dZ2, A1.T) + lambd/m * W2
    db2 = 1./m * np.sum(dZ2, axis=1, keepdims = True)

    dA1 = np.dot(W2.T, dZ2)
    dZ1 = dA1 * (1 - np.power(A1, 2))
    dW1 = 1./m * np.dot(dZ1, X.T) + lambd/m * W1
    db1 = 1./m * np.sum(dZ1, axis=1, keepdims = True)

    gradients = {"dZ3": dZ3, "dW3": dW3, "db3": db3, "dA2": dA2,
                 "dZ2": dZ2, "dW2": dW2, "db2": db2, "dA1": dA1,
                 "dZ1": dZ1, "dW1": dW1, "db1": db1}
    return gradients

def tanh_cost(parameters, X, Y, lambd):
    A3, cache = tanh_net_forward(X, parameters)
    return compute_cost_with_regularization(A3, Y, parameters, lambd)

def tanh_grads(parameters, X, Y, lambd):
    A3, cache = tanh_net_forward(X, parameters)
    g = backward_propagation_with_regularization(X, Y, cache, lambd)
    return {name: g["d" + name] for name in parameters}

def check_tanh(budget=10.0):
    rng = np.random.default_rng(3)
    X, Y = rng.normal(size=(4, 6)), np.array([[1, 0, 0, 1, 1, 0]])
    return sa.check_gradient(tanh_cost, tanh_grads, L_parameters((4, 3, 3, 1)), X, Y, 0.7, budget=budget)


def forward_propagation_with_dropout(X, parameters, keep_prob):
    np.random.seed(7)
    W1, b1, W2, b2, W3, b3 = [parameters[k] for k in ("W1", "b1", "W2", "b2", "W3", "b3")]
    Z1 = np.dot(W1, X) + b1
    A1 = np.maximum(0, Z1)
    D1 = np.random.rand(A1.shape[0], A1.shape[1])
    D1 = D1 < keep_prob
    A1 = A1 * D1
    A1 = A1 / keep_prob
    Z2 = np.dot(W2, A1) + b2
    A2 = np.maximum(0, Z2)
    D2 = np.random.rand(A2.shape[0], A2.shape[1])
    D2 = D2 < keep_prob
    A2 = A2 * D2
    A2 = A2 / keep_prob
    Z3 = np.dot(W3, A2) + b3
    A3 = 1 / (1 + np.exp(-Z3))
    return A3, (Z1, D1, A1, W1, b1, Z2, D2, A2, W2, b2, Z3, A3, W3, b3)

def backward_propagation_with_dropout(X, Y, cache, keep_prob):
    m = X.shape[1]
    (Z1, D1, A1, W1, b1, Z2, D2, A2, W2, b2, Z3, A3, W3, b3) = cache
    dZ3 = A3 - Y
    dW3 = 1./m * np.dot(dZ3, A2.T)
    db3 = 1./m * np.sum(dZ3, axis=1, keepdims=True)
    dA2 = np.dot(W3.T, dZ3)
    dA2 = dA2 * D2
    dA2 = dA2 / keep_prob
    dZ2 = np.multiply(dA2, np.int64(A2 > 0))
    dW2 = 1./m * np.dot(dZ2, A1.T)
    db2 = 1./m * np.sum(dZ2, axis=1, keepdims=True)
    dA1 = np.dot(W2.T, dZ2)
    dA1 = dA1 * D1
    dA1 = dA1 / keep_prob
    dZ1 = np.multiply(dA1, np.int64(A1 > 0))
    dW1 = 1./m * np.dot(dZ1, X.T)
    db1 = 1./m * np.sum(dZ1, axis=1, keepdims=True)
    return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2, "W3": dW3, "b3": db3}

def dropout_cost(parameters, X, Y):
    A3, cache = forward_propagation_with_dropout(X, parameters, 0.6)
    return compute_cost(A3, Y)

def dropout_grads(parameters, X, Y):
    A3, cache = forward_propagation_with_dropout(X, parameters, 0.6)
    return backward_propagation_with_dropout(X, Y, cache, 0.6)

def check_dropout(budget=10.0):
    rng = np.random.default_rng(4)
    X, Y = rng.uniform(size=(4, 6)), np.array([[1, 0, 0, 1, 1, 0]])
    parameters = {k: 0.5*v + 0.1 for k, v in L_parameters((4, 6, 6, 1)).items()}
    return sa.check_gradient(dropout_cost, dropout_grads, parameters, X, Y, budget=budget)


# ------------------------------ one cell of a recurrent network ------------------------------

def rnn_cell_forward(xt, a_prev, Wax, Waa, ba):
    a_next = np.tanh(np.dot(Waa, a_prev) + np.dot(Wax, xt) + ba)
    return a_next, (a_next, a_prev, xt, Wax, Waa, ba)

def rnn_cell_backward(da_next, cache):
    (a_next, a_prev, xt, Wax, Waa, ba) = cache
    dtanh = (1 - a_next ** 2) * da_next
    dxt = np.dot(Wax.T, dtanh)
    dWax = np.dot(dtanh, xt.T)
    da_prev = np.dot(Waa.T, dtanh)
    dWaa = np.dot(dtanh, a_prev.T)
    dba = np.sum(dtanh, axis=1, keepdims=True)
    return dxt, da_prev, dWax, dWaa, dba

def check_rnn_cell(budget=10.0):
    rng = np.random.default_rng(5)
    sizes = ((3, 4), (3, 4), (3, 3), (3, 3), (3, 1))
    return sa.check_backward(rnn_cell_forward, rnn_cell_backward, *[rng.normal(size=s) for s in sizes], budget=budget)


CHECKS = {"L": check_L, "tanh": check_tanh, "dropout": check_dropout, "rnn_cell": check_rnn_cell}
L2 = "backward_propagation_with_regularization"
DROP = "backward_propagation_with_dropout"

MISTAKES = [
    # one slip at each layer
    wrong("relu_mask_of_dA", "L", "relu_backward", "dZ[Z <= 0] = 0", "dZ[dA <= 0] = 0", "upstream_not_linear taken_as operand"),
    wrong("relu_keeps_all", "L", "relu_backward", "    dZ[Z <= 0] = 0\n", "", "lost taken_as", at=("dZ = np.array(dA, copy=True)", "return dZ")),
    wrong("relu_wrong_side", "L", "relu_backward", "dZ[Z <= 0] = 0", "dZ[Z >= 0] = 0", "taken_as operand"),
    wrong("sigmoid_half", "L", "sigmoid_backward", "dA * s * (1-s)", "dA * s", "taken_as", "A"),
    wrong("sigmoid_of_dA", "L", "sigmoid_backward", "1/(1+np.exp(-Z))", "1/(1+np.exp(-dA))", "upstream_not_linear operand taken_as"),
    wrong("dW_unscaled", "L", "linear_backward", "np.dot(dZ, A_prev.T)/m", "np.dot(dZ, A_prev.T)", "mean_missing"),
    wrong("db_row", "L", "linear_backward", "np.sum(dZ, axis=1, keepdims=True)/m", "np.sum(dZ)/m", "other_sum summed lost_axis should_keep"),
    wrong("db_mean_and_m", "L", "linear_backward", "np.sum(dZ, axis=1, keepdims=True)/m", "np.mean(dZ, axis=1, keepdims=True)/m", "averaged_over averaged other_sum"),
    wrong("m_is_the_features", "L", "linear_backward", "m = A_prev.shape[1]", "m = A_prev.shape[0]", "ratio"),
    wrong("dA_prev_over_m", "L", "linear_backward", "dA_prev = np.dot(W.T, dZ)", "dA_prev = np.dot(W.T, dZ)/m", "averaged_over times", "7"),
    wrong("dAL_over_m", "L", "L_model_backward", "-(np.divide(Y, AL) - np.divide(1-Y, 1-AL))", "-(np.divide(Y, AL) - np.divide(1-Y, 1-AL))/Y.shape[1]", "averaged_over"),
    wrong("dAL_sign", "L", "L_model_backward", "-(np.divide(Y, AL) - np.divide(1-Y, 1-AL))", "-(np.divide(Y, AL) + np.divide(1-Y, 1-AL))", "wrong_sign term part"),
    wrong("relu_for_sigmoid", "L", "L_model_backward", 'dAL, current_cache, "sigmoid"', 'dAL, current_cache, "relu"', "taken_as lost"),
    wrong("cache_of_the_last", "L", "L_model_backward", "current_cache = caches[l]", "current_cache = caches[L-2]", "another_run | taken_as two_mistakes operand"),
    wrong("dW_minus_db", "L", "L_model_backward", 'grads["dW"+str(l+1)] = dW', 'grads["dW"+str(l+1)] = dW - db', "term"),
    # regularisation
    wrong("l2_forgotten_once", "tanh", L2, " + lambd/m * W2", "", "term left_out"),
    wrong("l2_without_m", "tanh", L2, "lambd/m * W3", "lambd * W3", "term mean_missing times"),
    wrong("l2_other_weight", "tanh", L2, "lambd/m * W2", "lambd/m * W1[:, :3]", "term two_mistakes"),
    wrong("l2_sign", "tanh", L2, " + lambd/m * W1", " - lambd/m * W1", "term wrong_sign"),
    wrong("tanh_of_Z", "tanh", L2, "dZ1 = dA1 * (1 - np.power(A1, 2))", "dZ1 = dA1 * (1 - np.power(Z1, 2))", "taken_as operand", "Z1"),
    wrong("tanh_not_squared", "tanh", L2, "dZ2 = dA2 * (1 - np.power(A2, 2))", "dZ2 = dA2 * (1 - A2)", "taken_as"),
    wrong("tanh_of_next_layer", "tanh", L2, "dZ1 = dA1 * (1 - np.power(A1, 2))", "dZ1 = dA1 * (1 - np.power(A2, 2))", "taken_as operand", "A2"),
    wrong("dA2_for_dZ2", "tanh", L2, "dA1 = np.dot(W2.T, dZ2)", "dA1 = np.dot(W2.T, dA2)", "lost operand made_from left_out"),
    wrong("W2_not_transposed", "tanh", L2, "dA1 = np.dot(W2.T, dZ2)", "dA1 = np.dot(W2, dZ2)", "not_transposed", "W2"),
    wrong("W3_gradient_for_W3", "tanh", L2, "dA2 = np.dot(W3.T, dZ3)", "dA2 = np.dot(dW3.T, dZ3)", "operand", "W3"),
    wrong("Z_for_A", "tanh", L2, "np.dot(dZ2, A1.T)", "np.dot(dZ2, Z1.T)", "operand", "Z1"),
    wrong("A2_for_A1", "tanh", L2, "np.dot(dZ2, A1.T)", "np.dot(dZ2, A2.T)", "operand", "A2"),
    wrong("db1_from_dZ2", "tanh", L2, "db1 = 1./m * np.sum(dZ1, axis=1", "db1 = 1./m * np.sum(dZ2, axis=1", "that_of", "b2"),
    wrong("literal_4_over_m", "tanh", L2, "dW2 = 1./m * np.dot(dZ2, A1.T) + lambd/m * W2", "dW2 = 4./m * np.dot(dZ2, A1.T) + 4 * lambd/m * W2", "times constant_factor literal"),
    wrong("dA1_for_dZ1", "tanh", L2, "db1 = 1./m * np.sum(dZ1, axis=1", "db1 = 1./m * np.sum(dA1, axis=1", "lost made_from"),
    # dropout
    wrong("dropout_other_mask", "dropout", DROP, "dA1 = dA1 * D1", "dA1 = dA1 * D2", "operand taken_as times_too", "D2"),
    wrong("dropout_not_scaled", "dropout", DROP, "    dA2 = dA2 / keep_prob\n", "", "constant_factor times", at=("dA2 = dA2 * D2", "dZ2 = np.multiply(dA2, np.int64(A2 > 0))")),
    wrong("dropout_times_keep", "dropout", DROP, "dA2 = dA2 / keep_prob", "dA2 = dA2 * keep_prob", "times constant_factor scale_inverted"),
    # a cell
    wrong("cell_a_prev_in_tanh", "rnn_cell", "rnn_cell_backward", "(1 - a_next ** 2)", "(1 - a_prev ** 2)", "taken_as operand", "a_prev"),
    wrong("cell_da_untouched", "rnn_cell", "rnn_cell_backward", "dWaa = np.dot(dtanh, a_prev.T)", "dWaa = np.dot(da_next, a_prev.T)", "lost made_from"),
    wrong("cell_a_next_for_a_prev", "rnn_cell", "rnn_cell_backward", "np.dot(dtanh, a_prev.T)", "np.dot(dtanh, a_next.T)", "operand", "a_next"),
    wrong("cell_Wax_for_Waa", "rnn_cell", "rnn_cell_backward", "da_prev = np.dot(Waa.T, dtanh)", "da_prev = np.dot(Wax.T, dtanh)", "operand that_of"),
    wrong("cell_bias_over_rows", "rnn_cell", "rnn_cell_backward", "np.sum(dtanh, axis=1, keepdims=True)", "np.sum(dtanh, axis=0, keepdims=True).T[:3]", "other_sum summed"),
]
