"""Five real service processes under their supervisor, set so that one turn of the loop takes seconds."""
