"""Scripts as functions: everything in one function, forward pass first, backward pass behind it."""
# fmt: off
# ruff: noqa

import numpy as np

import spiral_autograd as sa
from strangers import wrong


# ---- a character model: dicts keyed by time ----

def lossFun(params, inputs, targets, hprev):
  Wxh, Whh, Why, bh, by = params
  vocab_size = Wxh.shape[1]
  xs, hs, ys, ps = {}, {}, {}, {}
  hs[-1] = np.copy(hprev)
  loss = 0
  for t in range(len(inputs)):
    xs[t] = np.zeros((vocab_size, 1))
    xs[t][inputs[t]] = 1
    hs[t] = np.tanh(np.dot(Wxh, xs[t]) + np.dot(Whh, hs[t-1]) + bh)
    ys[t] = np.dot(Why, hs[t]) + by
    ps[t] = np.exp(ys[t]) / np.sum(np.exp(ys[t]))
    loss += -np.log(ps[t][targets[t], 0])
  # backward pass: compute gradients going backwards
  dWxh, dWhh, dWhy = np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(Why)
  dbh, dby = np.zeros_like(bh), np.zeros_like(by)
  dhnext = np.zeros_like(hs[0])
  for t in reversed(range(len(inputs))):
    dy = np.copy(ps[t])
    dy[targets[t]] -= 1
    dWhy += np.dot(dy, hs[t].T)
    dby += dy
    dh = np.dot(Why.T, dy) + dhnext
    dhraw = (1 - hs[t] * hs[t]) * dh
    dbh += dhraw
    dWxh += np.dot(dhraw, xs[t].T)
    dWhh += np.dot(dhraw, hs[t-1].T)
    dhnext = np.dot(Whh.T, dhraw)
  return loss, [dWxh, dWhh, dWhy, dbh, dby]

def check_char_rnn(budget=10.0):
    r = np.random.RandomState(0)
    params = [r.randn(3, 5), r.randn(3, 3), r.randn(5, 3), r.randn(3, 1), r.randn(5, 1)]
    data = [0, 3, 1, 4], [3, 1, 4, 2], r.randn(3, 1)
    return sa.check_gradient(lambda params, i, t, h: lossFun(params, i, t, h)[0], lossFun, params, *data, budget=budget)


# ---- eleven lines: a network with two syn(apses) ----

def nonlin(x, deriv=False):
    if deriv:
        return x*(1-x)   # back: x is the output of the sigmoid
    return 1/(1+np.exp(-x))

def eleven_cost(syn, X, y):
    syn0, syn1 = syn
    l1 = nonlin(np.dot(X,syn0))
    l2 = nonlin(np.dot(l1,syn1))
    return 0.5*np.sum((y - l2)**2)

def eleven_grad(syn, X, y):
    syn0, syn1 = syn
    l0 = X
    l1 = nonlin(np.dot(l0,syn0))
    l2 = nonlin(np.dot(l1,syn1))
    l2_error = l2 - y
    l2_delta = l2_error*nonlin(l2,deriv=True)
    l1_error = l2_delta.dot(syn1.T)
    l1_delta = l1_error*nonlin(l1,deriv=True)
    return [l0.T.dot(l1_delta), l1.T.dot(l2_delta)]

def check_eleven(budget=10.0):
    r = np.random.RandomState(1)
    X, y = np.array([[0,0,1],[0,1,1],[1,0,1],[1,1,1]]), np.array([[0,1,1,0]]).T
    return sa.check_gradient(eleven_cost, eleven_grad, [2*r.random((3,4)) - 1, 2*r.random((4,1)) - 1], X, y, budget=budget)


# ---- a network from scratch, with a model dict ----

def calculate_loss(model, X, y, reg_lambda):
    W1, b1, W2, b2 = model['W1'], model['b1'], model['W2'], model['b2']
    num_examples = len(X)
    a1 = np.tanh(X.dot(W1) + b1)
    z2 = a1.dot(W2) + b2
    probs = np.exp(z2) / np.sum(np.exp(z2), axis=1, keepdims=True)
    data_loss = np.sum(-np.log(probs[range(num_examples), y]))
    data_loss += reg_lambda/2 * (np.sum(np.square(W1)) + np.sum(np.square(W2)))
    return 1./num_examples * data_loss

def backprop(model, X, y, reg_lambda):
    W1, b1, W2, b2 = model['W1'], model['b1'], model['W2'], model['b2']
    num_examples = len(X)
    a1 = np.tanh(X.dot(W1) + b1)
    z2 = a1.dot(W2) + b2
    probs = np.exp(z2) / np.sum(np.exp(z2), axis=1, keepdims=True)
    delta3 = probs
    delta3[range(num_examples), y] -= 1
    delta3 /= num_examples
    dW2 = (a1.T).dot(delta3)
    db2 = np.sum(delta3, axis=0, keepdims=True)
    delta2 = delta3.dot(W2.T) * (1 - np.power(a1, 2))
    dW1 = np.dot(X.T, delta2)
    db1 = np.sum(delta2, axis=0, keepdims=True)
    dW2 += reg_lambda * W2 / num_examples
    dW1 += reg_lambda * W1 / num_examples
    return {'W1': dW1, 'b1': db1, 'W2': dW2, 'b2': db2}

def check_scratch(budget=10.0):
    r = np.random.RandomState(2)
    model = {'W1': r.randn(2, 4), 'b1': r.randn(1, 4), 'W2': r.randn(4, 2), 'b2': r.randn(1, 2)}
    return sa.check_gradient(calculate_loss, backprop, model, r.randn(7, 2), np.array([0, 1, 1, 0, 1, 0, 0]), 0.4, budget=budget)


# ---- a list of sizes: weights and biases as lists, one example as a column ----

def sigmoid(z):
    return 1.0/(1.0+np.exp(-z))

def sigmoid_prime(z):
    return sigmoid(z)*(1-sigmoid(z))

def quadratic_cost(params, x, y):
    biases, weights = params
    a = x
    for b, w in zip(biases, weights):
        a = sigmoid(np.dot(w, a)+b)
    return 0.5*np.sum((a-y)**2)

def backprop_lists(params, x, y):
    biases, weights = params
    nabla_b = [np.zeros(b.shape) for b in biases]
    nabla_w = [np.zeros(w.shape) for w in weights]
    # feedforward, then backward
    activation = x
    activations = [x]
    zs = []
    for b, w in zip(biases, weights):
        z = np.dot(w, activation)+b
        zs.append(z)
        activation = sigmoid(z)
        activations.append(activation)
    delta = (activations[-1] - y) * sigmoid_prime(zs[-1])
    nabla_b[-1] = delta
    nabla_w[-1] = np.dot(delta, activations[-2].transpose())
    for l in range(2, len(biases)+1):
        z = zs[-l]
        sp = sigmoid_prime(z)
        delta = np.dot(weights[-l+1].transpose(), delta) * sp
        nabla_b[-l] = delta
        nabla_w[-l] = np.dot(delta, activations[-l-1].transpose())
    return (nabla_b, nabla_w)

def check_lists(budget=10.0):
    r = np.random.RandomState(3)
    sizes = [4, 4, 4, 4]
    biases = [r.randn(n, 1) for n in sizes[1:]]
    weights = [r.randn(n, m) for m, n in zip(sizes[:-1], sizes[1:])]
    return sa.check_gradient(quadratic_cost, backprop_lists, (biases, weights), r.randn(4, 1), r.rand(4, 1), budget=budget)


# ---- regression by hand ----

def ridge_cost(theta, X, y, lam):
    m = X.shape[0]
    h = X @ theta[1:] + theta[0]
    J = (1/(2*m)) * np.sum((h - y)**2) + (lam/(2*m)) * np.sum(theta[1:]**2)
    return J

def ridge_grad(theta, X, y, lam):
    m = X.shape[0]
    grad = np.zeros_like(theta)
    err = X @ theta[1:] + theta[0] - y
    grad[0] = np.sum(err)/m
    grad[1:] = (X.T @ err)/m
    grad[1:] += (lam/m) * theta[1:]
    return grad

def check_ridge(budget=10.0):
    r = np.random.RandomState(4)
    return sa.check_gradient(ridge_cost, ridge_grad, r.randn(5), r.randn(8, 4), r.randn(8), 1.5, budget=budget)


# ---- backprop ninja: by hand, every step named ----

def ninja_loss(p, Xb, Yb):
    n = Yb.shape[0]
    emb = p['C'][Xb]
    embcat = emb.reshape(n, -1)
    hprebn = sa.tap('hprebn', embcat @ p['W1'] + p['b1'])
    bnmeani = sa.tap('bnmeani', hprebn.mean(axis=0, keepdims=True))
    bndiff = sa.tap('bndiff', hprebn - bnmeani)
    bnvar = sa.tap('bnvar', (bndiff**2).sum(axis=0, keepdims=True) / (n - 1))
    bnvar_inv = sa.tap('bnvar_inv', (bnvar + 1e-5)**-0.5)
    bnraw = sa.tap('bnraw', bndiff * bnvar_inv)
    hpreact = sa.tap('hpreact', p['bngain'] * bnraw + p['bnbias'])
    h = sa.tap('h', np.tanh(hpreact))
    logits = sa.tap('logits', h @ p['W2'] + p['b2'])
    counts = sa.tap('counts', np.exp(logits - logits.max(axis=1, keepdims=True)))
    probs = sa.tap('probs', counts / counts.sum(axis=1, keepdims=True))
    logprobs = sa.tap('logprobs', np.log(probs))
    return -logprobs[range(n), Yb].mean()

def ninja_grads(p, Xb, Yb):
    n = Yb.shape[0]
    emb = p['C'][Xb]
    embcat = emb.reshape(n, -1)
    hprebn = embcat @ p['W1'] + p['b1']
    bndiff = hprebn - hprebn.mean(axis=0, keepdims=True)
    bnvar = (bndiff**2).sum(axis=0, keepdims=True) / (n - 1)
    bnvar_inv = (bnvar + 1e-5)**-0.5
    bnraw = bndiff * bnvar_inv
    h = np.tanh(p['bngain'] * bnraw + p['bnbias'])
    logits = h @ p['W2'] + p['b2']
    counts = np.exp(logits - logits.max(axis=1, keepdims=True))
    counts_sum = counts.sum(axis=1, keepdims=True)
    probs = counts / counts_sum

    dlogprobs = np.zeros_like(probs)
    dlogprobs[range(n), Yb] = -1.0/n
    dprobs = (1.0 / probs) * dlogprobs
    dcounts_sum_inv = (counts * dprobs).sum(axis=1, keepdims=True)
    dcounts = dprobs / counts_sum
    dcounts_sum = (-counts_sum**-2) * dcounts_sum_inv
    dcounts += np.ones_like(counts) * dcounts_sum
    dlogits = counts * dcounts
    dh = dlogits @ p['W2'].T
    dW2 = h.T @ dlogits
    db2 = dlogits.sum(axis=0)
    dhpreact = (1.0 - h**2) * dh
    dbngain = (bnraw * dhpreact).sum(axis=0, keepdims=True)
    dbnraw = p['bngain'] * dhpreact
    dbnbias = dhpreact.sum(axis=0, keepdims=True)
    dbndiff = bnvar_inv * dbnraw
    dbnvar_inv = (bndiff * dbnraw).sum(axis=0, keepdims=True)
    dbnvar = (-0.5*(bnvar + 1e-5)**-1.5) * dbnvar_inv
    dbndiff2 = (1.0/(n-1))*np.ones_like(bndiff) * dbnvar
    dbndiff += (2*bndiff) * dbndiff2
    dhprebn = dbndiff.copy()
    dbnmeani = (-dbndiff).sum(axis=0, keepdims=True)
    dhprebn += 1.0/n * (np.ones_like(hprebn) * dbnmeani)
    dembcat = dhprebn @ p['W1'].T
    dW1 = embcat.T @ dhprebn
    db1 = dhprebn.sum(axis=0)
    demb = dembcat.reshape(emb.shape)
    dC = np.zeros_like(p['C'])
    for k in range(Xb.shape[0]):
        for j in range(Xb.shape[1]):
            dC[Xb[k, j]] += demb[k, j]
    return {'C': dC, 'W1': dW1, 'b1': db1, 'W2': dW2, 'b2': db2, 'bngain': dbngain, 'bnbias': dbnbias,
            'logprobs': dlogprobs, 'probs': dprobs, 'counts': dcounts, 'logits': dlogits, 'h': dh, 'hpreact': dhpreact,
            'bnraw': dbnraw, 'bnvar_inv': dbnvar_inv, 'bnvar': dbnvar, 'bndiff': dbndiff, 'bnmeani': dbnmeani, 'hprebn': dhprebn}

def check_ninja(budget=10.0):
    r = np.random.RandomState(5)
    p = {'C': r.randn(6, 2), 'W1': r.randn(6, 4), 'b1': r.randn(4), 'W2': r.randn(4, 6), 'b2': r.randn(6),
         'bngain': r.randn(1, 4), 'bnbias': r.randn(1, 4)}
    Xb, Yb = r.randint(0, 6, size=(5, 3)), r.randint(0, 6, size=5)
    return sa.check_gradient(ninja_loss, ninja_grads, p, Xb, Yb, budget=budget)


CHECKS = {"char_rnn": check_char_rnn, "eleven": check_eleven, "scratch": check_scratch, "lists": check_lists,
          "ridge": check_ridge, "ninja": check_ninja}

MISTAKES = [
    wrong("char_no_dhnext", "char_rnn", "lossFun", "dh = np.dot(Why.T, dy) + dhnext", "dh = np.dot(Why.T, dy)", "not_carried left_out"),
    wrong("char_dhnext_of_dh", "char_rnn", "lossFun", "dhnext = np.dot(Whh.T, dhraw)", "dhnext = np.dot(Whh.T, dh)", "lost made_from"),
    wrong("char_Whh_not_T", "char_rnn", "lossFun", "dhnext = np.dot(Whh.T, dhraw)", "dhnext = np.dot(Whh, dhraw)", "not_transposed"),
    wrong("char_dWhh_of_hs_t", "char_rnn", "lossFun", "np.dot(dhraw, hs[t-1].T)", "np.dot(dhraw, hs[t].T)", "operand"),
    wrong("char_hs_before", "char_rnn", "lossFun", "(1 - hs[t] * hs[t])", "(1 - hs[t-1] * hs[t-1])", "taken_as operand"),
    wrong("char_dWhy_set", "char_rnn", "lossFun", "dWhy += np.dot(dy, hs[t].T)", "dWhy = np.dot(dy, hs[t].T)", "overwritten only"),
    wrong("char_dby_set", "char_rnn", "lossFun", "dby += dy", "dby = dy", "overwritten only"),
    wrong("char_target_0", "char_rnn", "lossFun", "dy[targets[t]] -= 1", "dy[targets[0]] -= 1", "operand another_run picked_beside one_hot | from_turn"),
    wrong("char_target_next", "char_rnn", "lossFun", "dy[targets[t]] -= 1", "dy[inputs[t]] -= 1", "operand part picked_beside"),
    wrong("char_h_in_dWhy", "char_rnn", "lossFun", "dWhy += np.dot(dy, hs[t].T)", "dWhy += np.dot(dy, hs[t-1].T)", "operand"),
    wrong("char_last_dh_only", "char_rnn", "lossFun", "dh = np.dot(Why.T, dy) + dhnext", "dh = dhnext if t < len(inputs)-1 else np.dot(Why.T, dy)", "left_out only"),
    wrong("eleven_of_z", "eleven", "eleven_grad", "nonlin(l1,deriv=True)", "nonlin(np.dot(l0,syn0),deriv=True)", "taken_as"),
    wrong("eleven_deriv", "eleven", "nonlin", "return x*(1-x)", "return x*(1+x)", "taken_as"),
    wrong("eleven_l2_for_l1", "eleven", "eleven_grad", "l1_error*nonlin(l1,deriv=True)", "l1_error*nonlin(l2,deriv=True)", "taken_as operand", "l2"),
    wrong("eleven_no_delta", "eleven", "eleven_grad", "l1_error = l2_delta.dot(syn1.T)", "l1_error = l2_error.dot(syn1.T)", "made_from lost"),
    wrong("eleven_sign", "eleven", "eleven_grad", "l2_error = l2 - y", "l2_error = y - l2", "wrong_sign"),
    wrong("scratch_sigmoid", "scratch", "backprop", "(1 - np.power(a1, 2))", "(a1 - np.power(a1, 2))", "taken_as"),
    wrong("scratch_reg_no_m", "scratch", "backprop", "dW2 += reg_lambda * W2 / num_examples", "dW2 += reg_lambda * W2", "term times mean_missing"),
    wrong("scratch_dW2_updated", "scratch", "backprop", "delta3.dot(W2.T)", "delta3.dot((W2 - 0.01 * dW2).T)", "updated"),
    wrong("scratch_dW2", "scratch", "backprop", "delta3.dot(W2.T)", "delta3.dot(dW2.T)", "operand"),
    wrong("scratch_m_of_classes", "scratch", "backprop", "delta3 /= num_examples", "delta3 /= W2.shape[1]", "ratio | times"),
    wrong("scratch_db_not_kept", "scratch", "backprop", "db1 = np.sum(delta2, axis=0, keepdims=True)", "db1 = np.sum(delta2, axis=1, keepdims=True)[:1]", "other_sum summed"),
    wrong("scratch_b1_as_b2", "scratch", "backprop", "'b1': db1", "'b1': np.zeros_like(b1)", "all_zeros never_written"),
    wrong("lists_z_next", "lists", "backprop_lists", "z = zs[-l]", "z = zs[-l+1]", "taken_as operand another_run"),
    wrong("lists_last_delta", "lists", "backprop_lists", "np.dot(weights[-l+1].transpose(), delta)", "np.dot(weights[-l+1].transpose(), nabla_b[-1])", "made_from operand"),
    wrong("lists_last_weights", "lists", "backprop_lists", "np.dot(weights[-l+1].transpose(), delta)", "np.dot(weights[-1].transpose(), delta)", "operand"),
    wrong("lists_same_weights", "lists", "backprop_lists", "np.dot(weights[-l+1].transpose(), delta)", "np.dot(weights[-l].transpose(), delta)", "operand"),
    wrong("lists_prime_of_a", "lists", "backprop_lists", "sp = sigmoid_prime(z)", "sp = sigmoid_prime(activations[-l])", "taken_as"),
    wrong("lists_last_sp", "lists", "backprop_lists", "sigmoid_prime(zs[-1])", "sigmoid_prime(activations[-1])", "taken_as"),
    wrong("lists_no_sp", "lists", "backprop_lists", "delta) * sp", "delta)", "lost"),
    wrong("lists_same_activation", "lists", "backprop_lists", "activations[-l-1].transpose()", "activations[-l].transpose()", "operand"),
    wrong("lists_prime", "lists", "sigmoid_prime", "sigmoid(z)*(1-sigmoid(z))", "sigmoid(z)*(1-z)", "taken_as"),
    wrong("lists_prime_bare", "lists", "sigmoid_prime", "sigmoid(z)*(1-sigmoid(z))", "1-sigmoid(z)", "taken_as"),
    wrong("ridge_bias_too", "ridge", "ridge_grad", "grad[1:] += (lam/m) * theta[1:]", "grad += (lam/m) * theta", "term constant_added term_in_part constant_in_part"),
    wrong("ridge_lam_everywhere", "ridge", "ridge_grad", "grad[1:] += (lam/m) * theta[1:]", "grad[1:] += lam/m", "constant_added term constant_in_part factor_lost | times_too"),
    wrong("ridge_no_m", "ridge", "ridge_grad", "grad[1:] = (X.T @ err)/m", "grad[1:] = (X.T @ err)", "mean_missing part constant_factor times"),
    wrong("ridge_from_2", "ridge", "ridge_grad", "grad[1:] += (lam/m) * theta[1:]", "grad[2:] += (lam/m) * theta[2:]", "part lacks_entry term_in_part"),
    wrong("ninja_counts_overwritten", "ninja", "ninja_grads", "dcounts += np.ones_like(counts) * dcounts_sum", "dcounts = np.ones_like(counts) * dcounts_sum", "only overwritten left_out"),
    wrong("ninja_counts_once", "ninja", "ninja_grads", "    dcounts += np.ones_like(counts) * dcounts_sum\n", "", "left_out term_left_out taken_as", at=("dlogits = counts * dcounts", "dcounts = dprobs / counts_sum")),
    wrong("ninja_no_keepdims_sum", "ninja", "ninja_grads", "dcounts_sum_inv = (counts * dprobs).sum(axis=1, keepdims=True)", "dcounts_sum_inv = (counts * dprobs).sum()", "summed"),
    wrong("ninja_bndiff_2", "ninja", "ninja_grads", "dbndiff += (2*bndiff) * dbndiff2", "dbndiff += bndiff * dbndiff2", "times constant_factor"),
    wrong("ninja_n_for_n_1", "ninja", "ninja_grads", "(1.0/(n-1))", "(1.0/n)", "one_less"),
    wrong("ninja_mean_lost", "ninja", "ninja_grads", "dhprebn += 1.0/n * (np.ones_like(hprebn) * dbnmeani)", "dhprebn += np.ones_like(hprebn) * dbnmeani", "mean_missing times constant_factor | term_taken"),
    wrong("ninja_tanh", "ninja", "ninja_grads", "(1.0 - h**2) * dh", "(1.0 - h) * dh", "taken_as"),
    wrong("ninja_C_set", "ninja", "ninja_grads", "dC[Xb[k, j]] += demb[k, j]", "dC[Xb[k, j]] = demb[k, j]", "overwritten"),
    wrong("ninja_C_plus", "ninja", "ninja_grads", "    for k in range(Xb.shape[0]):\n        for j in range(Xb.shape[1]):\n            dC[Xb[k, j]] += demb[k, j]\n", "    for j in range(Xb.shape[1]):\n        dC[Xb[:, j]] += demb[:, j]\n", "overwritten", at="dC[Xb[:, j]] += demb[:, j]"),
    wrong("ninja_log_sign", "ninja", "ninja_grads", "-1.0/n", "1.0/n", "wrong_sign"),
]
