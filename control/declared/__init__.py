"""The file that declares an installation (`sluice.yaml`): its form, reading, plan and export."""
