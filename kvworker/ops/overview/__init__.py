"""The operators' view of the whole: queues, workers and stores. Commands and the dashboard are views on it."""
