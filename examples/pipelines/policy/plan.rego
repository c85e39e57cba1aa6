# What a plan of the fleet may do. `conftest test --policy policy plan.json` reads the output of `terraform show -json`.
#
# A microVM's root volume ends with it, so destroying is what the rules are about: what is labelled `protected` is never
# destroyed by a pipeline, and never are many microVMs in one plan.
package main

import rego.v1

most_destroyed := 2

microvms contains change if {
	some change in input.resource_changes
	change.type == "flintlock_microvm"
	change.mode == "managed"
}

destroyed contains change if {
	some change in microvms
	"delete" in change.change.actions
}

deny contains message if {
	some change in destroyed
	change.change.before.labels.protected == "true"
	message := sprintf("%s is protected: this plan would destroy it", [change.address])
}

deny contains message if {
	count(destroyed) > most_destroyed
	message := sprintf("this plan would destroy %d microVMs; at most %d at once", [count(destroyed), most_destroyed])
}

deny contains message if {
	some change in microvms
	not "delete" in change.change.actions
	not change.change.after.labels.team
	message := sprintf("%s has no label `team`: nobody would be asked about it", [change.address])
}

warn contains message if {
	some change in microvms
	change.change.after.drift_policy == "report"
	message := sprintf("%s does not heal by itself: its drift waits for an approval", [change.address])
}
