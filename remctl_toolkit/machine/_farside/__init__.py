"""Sources that run on the far side: Python 3.8 and up, standard library only.

They are sent as text, never imported here.
"""
