"""What operators see of the whole: queues, workers and stores. Commands and the dashboard are views on it."""
