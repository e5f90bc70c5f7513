"""From a name to a trained, packaged classifier. Imports ``data`` only; knows no Ray."""
