"""A server for the command line to serve as it is; where it is imported only to be refused, nobody closes it."""

from engine import Server

server = Server("tcp://127.0.0.1:*")
server.close()
