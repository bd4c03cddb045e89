"""One file per public verb, and what the verbs share."""

from dynacor_ray import engine as engine  # first of all: it sets what torch reads as it is loaded
