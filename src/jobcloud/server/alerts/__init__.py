"""The sending of alerts: channels, their forms, delivery, and the threads. scheduler/alerts.py decides what is sent."""
