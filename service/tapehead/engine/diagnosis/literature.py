"""The papers that findings rest on."""

BENGIO = (
    "Bengio, Simard and Frasconi 1994, Learning long-term dependencies with gradient descent is difficult, "
    "IEEE Transactions on Neural Networks 5(2)"
)
ENGELKEN = "Engelken, Wolf and Abbott 2020, Lyapunov spectra of chaotic recurrent neural networks, arXiv:2006.02427"
GERS = (
    "Gers, Schmidhuber and Cummins 2000, Learning to forget: continual prediction with LSTM, Neural Computation 12(10)"
)
GLOROT = (
    "Glorot and Bengio 2010, Understanding the difficulty of training deep feedforward neural networks, AISTATS; "
    "He, Zhang, Ren and Sun 2015, Delving deep into rectifiers, ICCV"
)
HOCHREITER = (
    "Hochreiter 1998, The vanishing gradient problem during learning recurrent neural nets and problem solutions, "
    "International Journal of Uncertainty, Fuzziness and Knowledge-Based Systems 6(2)"
)
JOZEFOWICZ = "Jozefowicz, Zaremba and Sutskever 2015, An empirical exploration of recurrent network architectures, ICML"
KARPATHY = "Karpathy, Johnson and Li 2015, Visualizing and understanding recurrent networks, arXiv:1506.02078"
LE = (
    "Le, Jaitly and Hinton 2015, A simple way to initialize recurrent networks of rectified linear units, "
    "arXiv:1504.00941"
)
MAAS = "Maas, Hannun and Ng 2013, Rectifier nonlinearities improve neural network acoustic models, ICML workshop"
PASCANU = "Pascanu, Mikolov and Bengio 2013, On the difficulty of training recurrent neural networks, ICML"
SAXE = (
    "Saxe, McClelland and Ganguli 2014, Exact solutions to the nonlinear dynamics of learning in deep linear neural "
    "networks, ICLR"
)
