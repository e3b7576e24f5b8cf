"""The forms in which a picture is fed to the CTR model: a file each, listed in table.py."""
