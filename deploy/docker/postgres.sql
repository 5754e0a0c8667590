-- One database a room that keeps state: no room reads another's. Inference keeps none.
CREATE DATABASE gateway;
CREATE DATABASE registry;
CREATE DATABASE trainer;
CREATE DATABASE monitor;
