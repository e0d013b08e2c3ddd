"""Make lobby.json again."""

from wanedge_export.tokenizer import LOBBY, train_lobby

if __name__ == "__main__":
    train_lobby().save(str(LOBBY))
