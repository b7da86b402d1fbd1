"""flapsam's client and server as a Flower app.

Nothing is computed here: the program `flapsam` trains a site's round and makes the next state of the updates, and Flower
carries the files between the two.
"""
