"""Plain layers that several tests need: they are right, and their gradients are attributes."""


class Dense:
    """y = x W + b."""

    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
        return dout @ self.W.T


class Elementwise:
    """A function of x, entry by entry, and its handwritten derivative."""

    def __init__(self, function, derivative):
        self.function, self.derivative = function, derivative

    def forward(self, x):
        self.x = x
        return self.function(x)

    def backward(self, dout):
        return dout * self.derivative(self.x)


class Product:
    """Has no gradient for its second input, and ought to."""

    def forward(self, x, y):
        self.y = y
        return x * y

    def backward(self, dout):
        return dout * self.y


class Sequence:
    """One layer after another."""

    def __init__(self, *layers):
        self.layers = list(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dout):
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout
