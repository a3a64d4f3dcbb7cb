// What holds a pod's namespaces.
module kpatrol.test/pause

go 1.24.0
