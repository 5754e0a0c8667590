"""The monitor's use cases. Records and labels come in (`taking`), fill windows (`drifting`) and weigh on canaries
(`judging`); objectives are checked at intervals (`upkeep`); anyone with a key may look (`showing`)."""
