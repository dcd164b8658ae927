-- Earlier formats kept messages that may name folders of the machine; now an error's path is kept apart from its message.
UPDATE videos SET error_message = error_code WHERE instr(error_message, '/') > 0;
UPDATE jobs SET error_message = error_code WHERE instr(error_message, '/') > 0;
