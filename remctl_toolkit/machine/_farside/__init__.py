"""Sources that run on the far side: Python 3.8 and up, standard library only.

They are sent as text.  What both sides do alike (the frames of tunnels, sending and receiving
files) is imported here as well.
"""
