"""What outlives the process: sessions, jobs and the output of each job."""
