"""Rollouts: a challenger on its way to champion. Pure: values in, values out, no clock, no store, no data plane.

Read in this order: ``plan`` (steps and gates), ``state``, ``observation``, ``missing`` (what keeps a step from being left), ``advance``,
``calls`` (what people ask for), ``interruptions`` (what other changes of an endpoint do to a rollout), ``moves`` (its effect on live
traffic), ``words``, ``preview`` (what a rollout would do). How a driver uses them: ``docs/design/rollouts.md``.
"""
