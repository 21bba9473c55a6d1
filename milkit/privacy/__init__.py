"""What is about to be given away, looked through for what may tell who a patient is: ``scan`` finds, ``gate`` stops.

Study ids, which stand in the place of ids that identify, are made in ``milkit.bags.keys``.
"""
