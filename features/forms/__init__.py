"""The forms in which a picture is fed to the CTR model: one file per form, listed in table.py."""
