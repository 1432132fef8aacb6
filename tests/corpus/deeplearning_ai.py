"""Examples are columns; parameters and gradients are dicts."""

import numpy as np

from corpus.check import gradient


def initialize_parameters(rng, n_x, n_h, n_y):
    return {
        "W1": rng.normal(size=(n_h, n_x)),
        "b1": rng.normal(size=(n_h, 1)),
        "W2": rng.normal(size=(n_y, n_h)),
        "b2": rng.normal(size=(n_y, 1)),
    }


def forward_propagation(X, parameters):
    W1 = parameters["W1"]
    b1 = parameters["b1"]
    W2 = parameters["W2"]
    b2 = parameters["b2"]

    Z1 = np.dot(W1, X) + b1
    A1 = np.tanh(Z1)
    Z2 = np.dot(W2, A1) + b2
    A2 = 1 / (1 + np.exp(-Z2))

    cache = {"Z1": Z1, "A1": A1, "Z2": Z2, "A2": A2}
    return A2, cache


def compute_cost(A2, Y):
    m = Y.shape[1]
    logprobs = np.multiply(Y, np.log(A2)) + np.multiply(1 - Y, np.log(1 - A2))
    cost = -np.sum(logprobs) / m
    return cost


def backward_propagation(parameters, cache, X, Y):
    m = X.shape[1]
    W2 = parameters["W2"]
    A1 = cache["A1"]
    A2 = cache["A2"]

    dZ2 = A2 - Y
    dW2 = (1 / m) * np.dot(dZ2, A1.T)
    db2 = (1 / m) * np.sum(dZ2, axis=1, keepdims=True)
    dZ1 = np.dot(W2.T, dZ2) * (1 - np.power(A1, 2))
    dW1 = (1 / m) * np.dot(dZ1, X.T)
    db1 = (1 / m) * np.sum(dZ1, axis=1, keepdims=True)

    grads = {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}
    return grads


def nn_cost(parameters, X, Y):
    A2, _ = forward_propagation(X, parameters)
    return compute_cost(A2, Y)


def nn_grads(parameters, X, Y):
    _, cache = forward_propagation(X, parameters)
    return backward_propagation(parameters, cache, X, Y)


# logistic regression, week 2


def propagate(w, b, X, Y):
    m = X.shape[1]
    A = 1 / (1 + np.exp(-(np.dot(w.T, X) + b)))
    cost = -1 / m * np.sum(Y * np.log(A) + (1 - Y) * np.log(1 - A))
    dw = 1 / m * np.dot(X, (A - Y).T)
    db = 1 / m * np.sum(A - Y)
    return {"dw": dw, "db": db}, cost


def logistic_cost(params, X, Y):
    return propagate(params["w"], params["b"], X, Y)[1]


def logistic_grads(params, X, Y):
    return propagate(params["w"], params["b"], X, Y)[0]


def _network(rng, s):
    X = rng.normal(size=(s.d, s.n))
    Y = (rng.uniform(size=(s.h, s.n)) > 0.5).astype(float)
    return gradient(nn_cost, nn_grads, initialize_parameters(rng, s.d, s.h + 1, s.h), X, Y)


def _logistic(rng, s):
    X = rng.normal(size=(s.d, s.n))
    Y = rng.integers(2, size=(1, s.n))
    params = {"w": rng.normal(size=(s.d, 1)), "b": 0.3}
    return gradient(logistic_cost, logistic_grads, params, X, Y)


CHECKS = {"two_layers_columns": _network, "logistic_regression": _logistic}
