"""The cluster's own certificate authority at work: any node signs, with the key that the state holds sealed.

`founding` brings the authority into the state of a new cluster, `issuer` signs for others, `renewal` keeps this node's
own certificate valid.
"""
